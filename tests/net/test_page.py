"""The commands that docs/interception.md shows, typed in order by root."""

import shutil
import tempfile
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.docs.console import Shell, agrees, steps
from tests.net.world import measured_by_all, readable_by_all

PAGE = "docs/interception.md"


def test_the_commands_of_the_page_do_what_it_says(opa_binary):
    typed = steps((REPOSITORY / PAGE).read_text())
    assert typed
    opa = opa_binary.resolve()
    with (
        tempfile.TemporaryDirectory(prefix="tg-docs-") as name,
        measured_by_all(Path(name)) as environment,
    ):
        clone = Path(name)
        clone.chmod(0o755)
        kept = shutil.ignore_patterns("var", "*.log", "urls", "answers", "task*.json", "tasks")
        shutil.copytree(REPOSITORY / "examples", clone / "examples", ignore=kept)
        shell = Shell(clone, opa, readable_by_all(opa.parent), environment)
        try:
            for step, following in zip(typed, [*typed[1:], None], strict=True):
                status, seen = shell.run(step.command)
                told = f"{PAGE}:{step.line}: {step.command}\n--- status {status}, printed:\n{seen}"
                assert agrees(step.printed, seen), f"{told}\n--- the page has:\n" + "\n".join(step.printed)
                assert status == 0 or (following is not None and following.command == "echo $?"), told
        finally:
            shell.close()
