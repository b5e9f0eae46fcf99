"""OPA is started again, with back-off, for as long as that fails."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from taskgrant.errors import ConfigurationError
from taskgrant.policy.client import OpaFault
from taskgrant.policy.config import OpaConfig, PolicyConfig
from taskgrant.policy.process import policy_engine
from taskgrant.policy.supervisor import OpaProcess, State
from tests.policy.make import QUERY


@pytest.fixture
def flaky(tmp_path: Path, opa_binary: Path) -> Path:
    """An OPA that does not start while there is a file `broken` beside it."""
    program = tmp_path / "flaky-opa"
    program.write_text(
        f'#!/bin/sh\n[ -e "{tmp_path}/broken" ] && [ "$1" = run ] && {{ echo "no luck today"; exit 3; }}\n'
        f'exec "{opa_binary}" "$@"\n'
    )
    program.chmod(0o755)
    return program


async def test_keeps_trying(flaky: Path, caplog: pytest.LogCaptureFixture) -> None:
    states: asyncio.Queue[State] = asyncio.Queue()
    config = PolicyConfig(opa=OpaConfig(binary=str(flaky)), deadline_ms=5000)
    async with asyncio.timeout(60), policy_engine(config, on_state=states.put_nowait) as engine:
        assert [await states.get(), await states.get()] == [State.STARTING, State.READY]
        await asyncio.to_thread((flaky.parent / "broken").touch)
        assert engine.process is not None
        process = engine.process
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        seen = [await states.get() for _ in range(5)]
        assert seen == [State.DOWN, State.STARTING, State.DOWN, State.STARTING, State.DOWN]
        assert "OPA does not start: no luck today" in caplog.text
        await asyncio.to_thread((flaky.parent / "broken").unlink)
        await process.wait_ready()
        assert (await engine.decider.decide(QUERY)).decision_id


async def test_the_first_start_must_succeed(flaky: Path) -> None:
    await asyncio.to_thread((flaky.parent / "broken").touch)
    with pytest.raises(ConfigurationError, match="OPA does not start: no luck today"):
        async with policy_engine(PolicyConfig(opa=OpaConfig(binary=str(flaky)))):
            pass


async def test_policies_that_answer_nothing_are_a_fault(opa_binary: Path, tmp_path: Path) -> None:
    async def probe() -> None:
        raise OpaFault("data.taskgrant.authz.decision is undefined")

    process = OpaProcess(str(opa_binary), tmp_path, (), 256, probe)
    with pytest.raises(ConfigurationError, match="decision is undefined"):
        async with process:
            pass
    assert not process.alive


async def test_stopped_while_it_starts(opa_binary: Path, tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def probe() -> None:
        asked.set()
        await asyncio.Event().wait()

    process = OpaProcess(str(opa_binary), tmp_path, (), 256, probe)
    starting = asyncio.ensure_future(process.__aenter__())
    await asked.wait()
    pid = process.pid
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not await asyncio.to_thread(Path(f"/proc/{pid}").exists)
