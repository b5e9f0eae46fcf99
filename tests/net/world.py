"""The far side: a network namespace that stands for everything that an agent could try to reach.

It has every address that the tests dial, and counts each packet that comes out of an agent's namespace and is not
addressed to a tool server. Sockets in it are made by a thread that has entered it for a moment.
"""

import ctypes
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tests.conftest import REPOSITORY

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

#: The host's end of the agent's veth pair, where the tool servers are.
UPSTREAM = "198.51.100.1"
#: Where nobody should ever hear anything, all of them addresses of this namespace alone.
ELSEWHERE = "192.0.2.1"
ELSEWHERE6 = "2001:db8::1"
METADATA = "169.254.169.254"


class World:
    def __init__(self) -> None:
        self.descriptor = _in_thread(_new_namespace)
        lines = ["link set lo up"]
        lines += [f"addr add {one}/32 dev lo" for one in (UPSTREAM, ELSEWHERE, METADATA)]
        lines += [f"addr add {ELSEWHERE6}/128 dev lo nodad"]
        self.check("ip", "-batch", "-", given="\n".join(lines))

    def close(self) -> None:
        os.close(self.descriptor)

    def enter(self, call: Callable[[], T]) -> T:
        """The answer of a call that is made in this namespace."""
        return enter(self.descriptor, call)

    def listen(self, host: str = UPSTREAM, port: int = 0) -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return self.enter(lambda: socket.create_server((host, port), family=family))

    @property
    def prefix(self) -> list[str]:
        """What makes a command run here; it may still need the descriptor handed to it."""
        return ["nsenter", f"--net=/proc/self/fd/{self.descriptor}"]

    def check(self, *command: str, given: str | None = None) -> str:
        done = subprocess.run(
            [*self.prefix, *command],
            input=given,
            capture_output=True,
            text=True,
            pass_fds=(self.descriptor,),
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def record(self, *expected: int) -> None:
        """From now on counts what comes out of an agent's namespace, except for tool servers' ports."""
        ports = ", ".join(map(str, expected))
        self.check(
            "nft", "-f", "-",
            given=f"""table inet recorder
delete table inet recorder
table inet recorder {{
  counter escaped {{
  }}
  chain arriving {{
    type filter hook prerouting priority -300; policy accept;
    iifname != "tg-*" accept
    ip daddr {UPSTREAM} tcp dport {{ {ports} }} accept
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
    counter name escaped
  }}
}}
""",
        )  # fmt: skip

    def escaped(self) -> int:
        """Packets that have come out and were for no tool server."""
        listed = json.loads(self.check("nft", "-j", "list", "counter", "inet", "recorder", "escaped"))
        return next(int(entry["counter"]["packets"]) for entry in listed["nftables"] if "counter" in entry)


def enter(descriptor: int, call: Callable[[], T]) -> T:
    """The answer of a call that is made in this network namespace."""

    def inside() -> T:
        if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        return call()

    return _in_thread(inside)


def readable_by_all(*needed: Path) -> list[str]:
    """What makes a command run where these directories can be reached by every uid, whatever is above them.

    Where an ancestor is closed to others (root's home, in which Python may live), the command sees in its place an
    empty directory with nothing in it but what is needed.
    """
    wanted = {path.resolve() for path in (REPOSITORY, Path(sys.prefix), Path(sys.base_prefix), *needed)}
    closed = {path: above for path in wanted if (above := _closed(path)) is not None}
    lines = ["set -e", "mount -t tmpfs -o mode=755 none /mnt"]
    for number, path in enumerate(closed):
        lines += [f"mkdir /mnt/{number}", f"mount --bind '{path}' /mnt/{number}"]
    lines += [f"mount -t tmpfs -o mode=755 none '{above}'" for above in sorted(set(closed.values()))]
    for number, path in enumerate(closed):
        lines += [f"mkdir -p '{path}'", f"mount --bind /mnt/{number} '{path}'"]
    lines += ["umount -R -l /mnt", 'exec "$@"']
    return ["unshare", "--mount", "--propagation=private", "sh", "-c", "\n".join(lines), "sh"]


@contextmanager
def measured_by_all(directory: Path) -> Iterator[dict[str, str]]:
    """An environment in which processes of every uid can leave what coverage has measured; collected at the end."""
    environment = dict(os.environ)
    if environment.pop("COVERAGE_PROCESS_CONFIG", None) is None:
        yield environment
        return
    there = directory / "coverage"
    there.mkdir()
    there.chmod(0o777 | stat.S_ISVTX)
    environment["COVERAGE_PROCESS_START"] = str(REPOSITORY / "pyproject.toml")
    environment["COVERAGE_FILE"] = str(there / ".coverage")
    try:
        yield environment
    finally:
        for found in there.iterdir():
            shutil.move(found, REPOSITORY / found.name)


def _closed(path: Path) -> Path | None:
    """The topmost ancestor that others cannot pass."""
    for above in reversed([path, *path.parents]):
        if not above.stat().st_mode & 0o001:
            return above
    return None


def _new_namespace() -> int:
    if _libc.unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    return os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)


def _in_thread(call: Callable[[], T]) -> T:
    answers: list[T] = []
    faults: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(call())
        except BaseException as fault:
            faults.append(fault)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if faults:
        raise faults[0]
    return answers[0]
