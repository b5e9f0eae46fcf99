"""Waits for signals and for the ends of children, in one place and without a thread."""

import os
import select
import signal
from collections.abc import Sequence
from types import TracebackType
from typing import Self

#: Signals that end things, and are handed on to the agent.
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


class Reaper:
    """``with`` catches the signals. One at a time in a process."""

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in (*FORWARDED, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(-1)
        for number in (*FORWARDED, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.close(self._read)
        os.close(self._write)

    def wait(
        self, seconds: float | None = None, also: Sequence[int] = ()
    ) -> tuple[list[int], dict[int, int], list[int]]:
        """Signals that came, children that ended (pid → exit code, 128 and the signal's number as shells have it),
        and which of the descriptors ``also`` can be read. All empty when the time is over."""
        ready, _, _ = select.select([self._read, *also], [], [], seconds)
        signals: list[int] = []
        if self._read in ready:
            signals = [number for number in os.read(self._read, 4096) if number != signal.SIGCHLD]
        return signals, _ended(), [descriptor for descriptor in ready if descriptor != self._read]


def _ended() -> dict[int, int]:
    found: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        code = os.waitstatus_to_exitcode(status)
        found[pid] = 128 - code if code < 0 else code
