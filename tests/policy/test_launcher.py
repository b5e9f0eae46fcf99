"""OPA never outlives us."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

_PARENT = """
import asyncio, sys
from taskgrant.policy.config import OpaConfig, PolicyConfig
from taskgrant.policy.process import policy_engine

async def main():
    async with policy_engine(PolicyConfig(opa=OpaConfig(binary=sys.argv[1]))) as engine:
        print(engine.process.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def test_opa_dies_with_its_parent(opa_binary: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(opa_binary)], stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        assert parent.stdout is not None
        opa = os.pidfd_open(int(parent.stdout.readline()))
        try:
            parent.send_signal(signal.SIGKILL)
            assert select.select([opa], [], [], 30)[0], "OPA is still there"
        finally:
            os.close(opa)


def test_without_its_parent_it_does_not_start() -> None:
    from taskgrant.policy import launcher

    done = subprocess.run(
        [sys.executable, "-I", "-S", launcher.__file__, "1", str(1 << 30), "/bin/true"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "is gone" in done.stderr
