"""The commands that README and some pages tell a reader to type, typed in order, on real processes.

Their ``sh`` blocks are what comes before: cloning, ``make setup``. The rest runs in a copy of what they use.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.docs.console import Shell, agrees, steps

_GENERATED = shutil.ignore_patterns("run", "state", "*.jsonl", "*.log", "*.sock", "copied.*")


@pytest.fixture
def clone() -> Iterator[Path]:
    # Not tmp_path: the paths of sockets have to be short.
    with tempfile.TemporaryDirectory(prefix="tg-docs-") as name:
        shutil.copytree(REPOSITORY / "examples", Path(name) / "examples", ignore=_GENERATED)
        yield Path(name)


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md", "docs/stdio.md"])
def test_the_commands_of_a_page_do_what_it_says(page, clone, opa_binary):
    typed = steps((REPOSITORY / page).read_text())
    assert typed
    shell = Shell(clone, opa_binary)
    try:
        for step, following in zip(typed, [*typed[1:], None], strict=True):
            status, seen = shell.run(step.command)
            told = f"{page}:{step.line}: {step.command}\n--- status {status}, printed:\n{seen}"
            assert agrees(step.printed, seen), f"{told}\n--- the page has:\n" + "\n".join(step.printed)
            assert status == 0 or (following is not None and following.command == "echo $?"), told
    finally:
        shell.close()
