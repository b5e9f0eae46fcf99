"""The processes that hold keys leave no core dump and cannot be looked into by others of their uid."""

import subprocess
import sys

_PROBE = """
import ctypes, resource
from taskgrant.app.hardening import harden
harden()
pr_get_dumpable = 3
print(ctypes.CDLL(None).prctl(pr_get_dumpable, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE))
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
print(soft == hard)
"""


def test_nothing_of_the_memory_gets_out():
    ended = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, check=True)
    assert ended.stdout == "0 0 0\nTrue\n"
