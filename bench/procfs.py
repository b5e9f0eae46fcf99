"""What the kernel says of a process, from /proc: processor time, memory, children."""

import os
from dataclasses import dataclass
from pathlib import Path

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_MIB = 1024


@dataclass(frozen=True, slots=True)
class Memory:
    """MiB: resident now, and the most that ever was."""

    now: float
    peak: float


def cpu_seconds(pid: int) -> float:
    """Processor time of all threads so far, in user and kernel mode; accurate to some 10 ms."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) * _TICK


def memory(pid: int) -> Memory:
    found = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("VmRSS", "VmHWM"):
            found[name] = int(value.split()[0]) / _MIB
    return Memory(found["VmRSS"], found["VmHWM"])


def child(pid: int, name: str) -> int:
    """The child of ``pid`` that runs the program ``name``. Raises LookupError."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int(_stat(int(entry.name))[1])
                program = (entry / "comm").read_text().strip()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent == pid and program == name:
                return int(entry.name)
    raise LookupError(f"process {pid} has no child {name}")


def _stat(pid: int) -> list[str]:
    """The fields of ``stat`` after the program's name, which may hold anything: ``[0]`` is the state."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
