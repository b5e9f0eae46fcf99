"""Starts a tool server, and ends it with all that it has started: ``python keeper.py <parent> <command> …``.

A program of its own, between the guard and the server, so that nothing of a server outlives its task or the guard::

    guard ── keeper ── command          killed: command, and whatever it forked, into whichever session or group
               ▲
               └ SIGTERM from the guard, or from the kernel when the guard is gone (PR_SET_PDEATHSIG)

It is the subreaper of what it starts: a process whose parent has ended becomes its child, and can be found and
ended. On SIGTERM, and when the command has ended by itself: SIGTERM, ``GRACE`` seconds, SIGKILL. Its exit code is the
command's; 128 and the signal's number as shells have it.
"""

import ctypes
import os
import resource
import signal
import sys
import time
from contextlib import suppress

#: Seconds for a server to put its things in order.
GRACE = 2.0
#: How long is tried to kill what is left; what runs as another user by then (setuid) may not be ours to kill.
_KILLING = 3.0
_DESCRIPTORS = 1024
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_HEARD = (signal.SIGTERM, signal.SIGCHLD)


def main(arguments: list[str]) -> int:
    """``arguments``: the parent's process id, and what to start."""
    parent, *command = arguments
    signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    if os.getppid() != int(parent):
        return 128 + signal.SIGTERM
    # uvloop leaves the ends of our own pipes open a second time.
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    # The guard takes as many as it may have; programs that use select() or close them one by one want the usual few.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(_DESCRIPTORS, most), most))
    try:
        server = os.posix_spawnp(
            command[0], command, _environment(), setsid=True, setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
        )  # fmt: skip
    except OSError as fault:
        sys.stderr.write(f"{command[0]} cannot be started: {fault.strerror}\n")
        return 127
    # The pipes are the server's alone: whoever holds the other end sees it go.
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    ended: dict[int, int] = {}
    while server not in ended and signal.sigwait(_HEARD) != signal.SIGTERM:
        ended |= _reap()
    _end(server, ended)
    return ended.get(server, 128 + signal.SIGKILL)


def _end(server: int, ended: dict[int, int]) -> None:
    """Ends all that is left. ``ended`` takes in how."""
    if _children():
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(server, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while _children() and (left := deadline - time.monotonic()) > -_KILLING:
        ended |= _reap()
        if left > 0:
            signal.sigtimedwait([signal.SIGCHLD], min(left, 0.1))
            continue
        # What a killed process leaves behind is ours then: round by round, until there is nothing.
        for pid in _children():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        signal.sigtimedwait([signal.SIGCHLD], 0.1)


def _reap() -> dict[int, int]:
    """Children that have ended, and how."""
    found: dict[int, int] = {}
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0] != 0:
            code = os.waitstatus_to_exitcode(ended[1])
            found[ended[0]] = 128 - code if code < 0 else code
    return found


def _children() -> list[int]:
    """Children, of which any may have ended by now."""
    found, own = [], str(os.getpid()).encode()
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{name}/stat", "rb") as stat:
            # The name of a program may hold blanks and brackets: what follows the last one is the state, the parent.
            if stat.read().rpartition(b")")[2].split()[1] == own:
                found.append(int(name))
    return found


def _environment() -> dict[bytes, bytes]:
    """What we were given, and nothing else: Python may have added LC_CTYPE by now (PEP 538)."""
    with open("/proc/self/environ", "rb") as given:
        pairs = (entry.partition(b"=") for entry in given.read().split(b"\0"))
    return {name: value for name, equals, value in pairs if name and equals}


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
