"""Process 1 of the agent's PID namespace: ``python -m taskgrant.app.agent.init HOSTS_FILE DESCRIPTOR COMMAND …``.

When it ends, the kernel ends every process of the agent, whatever they had become. It hands on the signals whose
numbers it reads from the descriptor, and ends when that is closed.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress

from taskgrant.app.agent.reaper import Reaper


def main(hosts_file: str, descriptor: int, command: list[str]) -> int:
    os.set_inheritable(descriptor, False)
    subprocess.run(["mount", "--bind", hosts_file, "/etc/hosts"], check=True)  # noqa: S607 - root's PATH
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
