"""``taskgrant demo`` as a stranger sees it: it works, it reads well, and nothing of it stays, however it ends."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

WIDTH = 100
#: What the demo says when it has just begun to do something.
MOMENTS = {
    "starting": "starting a tool server",
    "working": "3. It does its work",
    "streaming": "is at page 2 of",
}


def _variables(opa: Path, temporary: Path) -> dict[str, str]:
    return {**os.environ, "TASKGRANT_OPA": str(opa), "TMPDIR": str(temporary)}


def _left(temporary: Path) -> list[str]:
    """Processes that have to do with the folder, and what is in it."""
    left = [str(path) for path in temporary.iterdir() if not _probe(path)]
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            known = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            known += os.fsencode(os.readlink(entry / "cwd"))
        except OSError:
            continue
        if os.fsencode(temporary) in known:
            left.append((entry / "cmdline").read_text())
    return left


def _probe(path: Path) -> bool:
    """A file by which ``tempfile`` tries a folder: of a process that was ended in that very moment."""
    return path.is_file() and path.read_bytes() in (b"", b"blat")


def test_it_shows_what_it_says_within_two_minutes(opa_binary: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "taskgrant.cli.main", "demo"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        env=_variables(opa_binary, tmp_path),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert [line.split(".")[0] for line in lines if re.match(r"\d+\. ", line)] == [
        str(n) for n in range(1, 11)
    ]
    told = "\n".join(lines)
    assert told.count("   ok    ") == told.count(": expected ") >= 20
    assert "DIFFERS" not in told
    for code in ("no_task", "arguments_refused", "no_grant", "uses_exhausted", "outcome_unknown"):
        assert f"expected {code}; seen {code}" in told
    assert lines[-1] == "Everything that was seen is what was expected."
    assert _left(tmp_path) == []


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("starting", signal.SIGINT),
        ("working", signal.SIGINT),
        ("streaming", signal.SIGINT),
        ("working", signal.SIGTERM),
        ("streaming", signal.SIGHUP),
    ],
)
async def test_interrupted_it_leaves_nothing(
    opa_binary: Path, tmp_path: Path, moment: str, number: signal.Signals
) -> None:
    demo = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "taskgrant.cli.main", "demo",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=_variables(opa_binary, tmp_path),
    )  # fmt: skip
    assert demo.stdout is not None
    async with asyncio.timeout(120):
        said = b""
        while MOMENTS[moment].encode() not in said:
            line = await demo.stdout.readline()
            assert line, f"it ended too soon:\n{said.decode()}"
            said += line
        demo.send_signal(number)
        rest = (await demo.stdout.read()).decode()
        assert await demo.wait() == 130, rest
    assert "everything that was started has been stopped" in rest
    assert "Traceback" not in rest
    assert _left(tmp_path) == []
