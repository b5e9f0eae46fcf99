"""Console blocks of Markdown pages as steps, and a shell that takes them.

A page's ``console`` blocks are one session, from top to bottom: what follows ``$ `` is typed, up to a line that ends
the command (a backslash, an open quote and an open here-document go on), and the lines after it are what it prints,
standard error included. There ``…`` stands for anything on its line, and a line of its own for any lines. A command
ends with status 0, unless the next one is ``echo $?``. Other blocks (``sh``, ``yaml``, ``json`` …) are not run.
"""

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_SECONDS = 90.0
_STOP_SECONDS = 20.0
_MARK = "--- the command has ended with "
_FENCE = re.compile(r"^```(\w*)\s*$")
_ELLIPSIS = "…"


@dataclass(frozen=True)
class Step:
    line: int  # of the page, from 1
    command: str
    printed: tuple[str, ...]


def steps(text: str) -> list[Step]:
    """The commands of a page's ``console`` blocks, in order."""
    found: list[Step] = []
    inside: str | None = None
    typed: list[str] = []
    printed: list[str] = []
    first = 0

    def close() -> None:
        if typed:
            found.append(Step(first, "\n".join(typed), tuple(printed)))
        typed.clear()
        printed.clear()

    for number, line in enumerate(text.splitlines(), start=1):
        if (fence := _FENCE.match(line)) is not None:
            if inside == "console":
                close()
            inside = None if inside is not None else fence[1]
        elif inside == "console":
            if typed and not printed and not _is_whole("\n".join(typed)):
                typed.append(line)
            elif line.startswith("$ "):
                close()
                first = number
                typed.append(line[2:])
            else:
                printed.append(line)
    return found


def _is_whole(command: str) -> bool:
    if command.endswith("\\"):
        return False
    checked = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True, check=False)
    return checked.returncode == 0 and not checked.stderr


def agrees(expected: tuple[str, ...], seen: str) -> bool:
    """Whether what was printed is what the page shows. Empty lines do not count, nor does how many blanks there are."""
    pattern = ""
    for line in filter(None, map(_settled, expected)):
        if line == _ELLIPSIS:
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*?".join(map(re.escape, line.split(_ELLIPSIS))) + "\n"
    text = "".join(f"{line}\n" for line in map(_settled, seen.splitlines()) if line)
    return re.fullmatch(pattern, text) is not None


def _settled(line: str) -> str:
    return " ".join(line.split())


class Shell:
    """A bash with the installed ``taskgrant`` on its PATH, in a network of its own: the pages' fixed ports are free.

    ``close`` ends all that was started in it. A network namespace needs root, or a kernel that lets users make one.
    """

    def __init__(
        self,
        directory: Path,
        opa: Path,
        within: Sequence[str] = (),
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """``within``: a command that runs the rest of its command line."""
        binaries = Path(sys.executable).parent
        environment = {
            **environment,
            "PATH": f"{binaries}:{os.environ['PATH']}",
            "TASKGRANT_OPA": str(opa),
            "TMPDIR": str(directory),
            "LC_ALL": "C.UTF-8",
        }
        environment.pop("TASKGRANT_SOCKET", None)
        private = ["--net"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--net"]
        self._bash = subprocess.Popen(
            [*within, "unshare", *private, "bash", "--noprofile", "--norc"],
            cwd=directory,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._send(
            f"ip link set lo up; __mark() {{ local s=$?; printf '\\n{_MARK}%s\\n' $s; return $s; }}; __mark"
        )
        self._read("ip link set lo up")

    def run(self, command: str) -> tuple[int, str]:
        """The command's status and what was printed until it ended, also by what runs beside it."""
        self._send(f"{command}\n__mark")
        return self._read(command)

    def close(self) -> None:
        group = self._bash.pid
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(group, number)
            self._bash.poll()
            deadline = time.monotonic() + _STOP_SECONDS
            while time.monotonic() < deadline and _lives(group):
                self._bash.poll()
                time.sleep(0.02)
        self._bash.wait(_STOP_SECONDS)
        for pipe in (self._bash.stdin, self._bash.stdout):
            assert pipe is not None
            pipe.close()

    def _send(self, text: str) -> None:
        assert self._bash.stdin is not None
        self._bash.stdin.write(f"{text}\n".encode())
        self._bash.stdin.flush()

    def _read(self, command: str) -> tuple[int, str]:
        assert self._bash.stdout is not None
        out = self._bash.stdout.fileno()
        seen = b""
        end = re.compile(rf"\n{_MARK}(\d+)\n".encode())
        deadline = time.monotonic() + _SECONDS
        while (found := end.search(seen)) is None:
            ready, _, _ = select.select([out], [], [], max(0.0, deadline - time.monotonic()))
            more = os.read(out, 65536) if ready else b""
            if not more:
                raise AssertionError(f"did not end: {command}\n{seen.decode(errors='replace')}")
            seen += more
        return int(found[1]), seen[: found.start()].decode(errors="replace")


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
