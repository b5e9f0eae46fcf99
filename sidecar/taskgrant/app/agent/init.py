"""Process 1 of the agent's PID namespace: ``python -m taskgrant.app.agent.init RESOLV_CONF DESCRIPTOR COMMAND …``.

When it ends, the kernel ends every process of the agent, whatever they had become. It hands on the signals whose
numbers it reads from the descriptor, and ends when that is closed.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from taskgrant.app.agent.reaper import Reaper

_RESOLV_CONF = Path("/etc/resolv.conf")
#: Where the machine's own resolvers (systemd-resolved, nscd) take look-ups over Unix sockets, past every rule.
_OTHER_RESOLVERS = (Path("/run/systemd/resolve"), Path("/run/nscd"))


def resolve_here(given: str) -> None:
    """Look-ups go by port 53, and so to the sidecar. A machine without resolv.conf has programs ask loopback."""
    there = _RESOLV_CONF.resolve()
    for directory in filter(Path.is_dir, _OTHER_RESOLVERS):
        _mount("-t", "tmpfs", "-o", "mode=0755,size=64k,nosuid,nodev,noexec", "none", str(directory))
        if directory in there.parents:
            there.touch()
    if there.exists():
        _mount("--bind", given, str(there))


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)  # noqa: S607 - root's PATH


def main(resolv_conf: str, descriptor: int, command: list[str]) -> int:
    os.set_inheritable(descriptor, False)
    resolve_here(resolv_conf)
    with Reaper() as reaper:
        # A session of its own: no controlling terminal to push input into.
        defaults = [signal.SIGPIPE, signal.SIGXFSZ]
        agent = os.posix_spawnp(command[0], command, os.environ, setsid=True, setsigdef=defaults)
        while True:
            _, ended, ready = reaper.wait(also=[descriptor])
            if agent in ended:
                return ended[agent]
            if ready:
                numbers = os.read(descriptor, 64)
                if not numbers:
                    return 128 + signal.SIGKILL
                for number in numbers:
                    with suppress(ProcessLookupError):
                        os.killpg(agent, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
