"""Becomes OPA: ``python launcher.py <parent> <bytes> <opa> …``.

A program of its own, since what it sets cannot safely be set between fork and exec of a process with threads.

* The kernel kills OPA when our process dies, however it dies (``PR_SET_PDEATHSIG``): it never outlives us.
* ``RLIMIT_DATA`` bounds its memory. (``RLIMIT_AS`` cannot: Go reserves far more address space than it uses.)
"""

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Never returns. ``arguments``: the parent's process id, the limit in bytes, and what to execute."""
    parent, limit, *command = arguments
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_PDEATHSIG")
    if os.getppid() != int(parent):
        sys.exit("the process that was to use this OPA is gone")
    resource.setrlimit(resource.RLIMIT_DATA, (int(limit), int(limit)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Python may have added LC_CTYPE (PEP 538); OPA is to see what we gave it and nothing else.
    environment = {name: value for name, value in os.environ.items() if name != "LC_CTYPE"}
    os.execve(command[0], command, environment)  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main(sys.argv[1:])
