"""Processes of ours beside this one, for the demo and for measuring: each with a log, and ended in every case."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from taskgrant.errors import TaskgrantError

T = TypeVar("T")

_START_SECONDS = 30.0
_STOP_SECONDS = 5.0
_POLL_SECONDS = 0.01


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C inside of the block is raised behind it: what the block makes is then known to whoever takes it down.

    For the main thread, and for steps that are over soon.
    """
    pending: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pending.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pending:
        signal.raise_signal(signal.SIGINT)


@dataclass(frozen=True, slots=True)
class Child:
    """``python <arguments>``, running. ``with`` ends it: asked first, then killed with what it had started."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(cls, directory: Path, name: str, *arguments: str) -> Self:
        log = directory / f"{name}.log"
        with log.open("wb") as out:
            # A session of its own: Ctrl-C reaches us, and we end our children in order.
            process = subprocess.Popen(
                [sys.executable, *arguments], stdout=out, stderr=out, start_new_session=True
            )
        return cls(name, process, log)

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_for(self, condition: Callable[[], T]) -> T:
        """The first true answer. Raises ``TaskgrantError`` with the log when the child ends, or takes too long."""
        deadline = time.monotonic() + _START_SECONDS
        while not (seen := condition()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                said = self.log.read_text(errors="replace")
                raise TaskgrantError(f"the {self.name} did not start; it said:\n{said}")
            time.sleep(_POLL_SECONDS)
        return seen

    def wait_for_file(self, path: Path) -> str:
        """The file's text, once it is there."""
        self.wait_for(path.exists)
        return path.read_text()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
