"""The whole of policy as a process: what it refuses to start with, what it survives, what it lets nobody do."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from taskgrant.errors import ConfigurationError
from taskgrant.model.codes import Code
from taskgrant.policy.config import OpaConfig, PolicyConfig
from taskgrant.policy.process import PolicyEngine, policy_engine
from taskgrant.policy.supervisor import State
from tests.policy.make import QUERY, policy, query


class States:
    """What `on_state` was told, and a way to wait for more."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[State] = asyncio.Queue()

    def __call__(self, state: State) -> None:
        self._queue.put_nowait(state)

    async def until(self, state: State) -> None:
        async with asyncio.timeout(30):
            while await self._queue.get() is not state:
                pass


def _kill(engine: PolicyEngine, number: int) -> None:
    assert engine.process is not None
    assert engine.process.pid is not None
    os.kill(engine.process.pid, number)


async def test_killed_it_denies_and_comes_back(start: Any, caplog: pytest.LogCaptureFixture) -> None:
    states = States()
    async with start(on_state=states) as engine:
        await states.until(State.READY)
        assert (await engine.decider.decide(QUERY)).allow
        _kill(engine, signal.SIGKILL)
        await states.until(State.DOWN)
        assert not engine.alive
        assert engine.waiting() == ["policy: OPA does not answer"]
        decision = await engine.decider.decide(QUERY)
        assert (decision.allow, decision.code) == (False, Code.POLICY_UNAVAILABLE)
        await states.until(State.READY)
        await engine.process.wait_ready()
        assert engine.waiting() == []
        assert (await engine.decider.decide(QUERY)).allow
    await states.until(State.STOPPED)
    assert "killed by SIGKILL" in caplog.text


async def test_slower_than_the_deadline_it_denies(start: Any) -> None:
    async with start(deadline_ms=200) as engine:
        _kill(engine, signal.SIGSTOP)
        began = asyncio.get_running_loop().time()
        decision = await engine.decider.decide(QUERY)
        took = asyncio.get_running_loop().time() - began
        _kill(engine, signal.SIGCONT)
    assert (decision.allow, decision.code) == (False, Code.POLICY_UNAVAILABLE)
    assert 0.19 < took < 2


async def test_stopped_it_leaves_nothing(start: Any) -> None:
    async with start() as engine:
        pid, folder = engine.process.pid, engine.process.socket.parent
        assert folder.stat().st_mode & 0o777 == 0o700
        assert engine.process.socket.stat().st_mode & 0o777 == 0o600
    assert not await asyncio.to_thread(folder.exists)
    assert not await asyncio.to_thread(Path(f"/proc/{pid}").exists)
    assert (await engine.decider.decide(QUERY)).code is Code.POLICY_UNAVAILABLE


async def test_the_environment_is_scrubbed(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "s3cret")
    async with start() as engine:
        path = Path(f"/proc/{engine.process.pid}/environ")
        environment = (await asyncio.to_thread(path.read_bytes)).rstrip(b"\0").split(b"\0")
    assert {entry.partition(b"=")[0] for entry in environment} == {
        b"GOGC",
        b"GOMEMLIMIT",
        b"GOMAXPROCS",
        b"HOME",
    }


@pytest.mark.parametrize(
    "method, path",
    [
        ("PUT", "/v1/policies/x"),
        ("DELETE", "/v1/policies/policy/0/authz/authz.rego"),
        ("GET", "/v1/policies"),
        ("GET", "/v1/config"),
        ("GET", "/v1/data"),
        ("POST", "/v1/data/taskgrant/boundaries"),
        ("PUT", "/v1/data/taskgrant/boundaries"),
        ("PATCH", "/v1/data/taskgrant/boundaries"),
        ("POST", "/v1/query"),
        ("POST", "/v1/compile"),
        ("POST", "/"),
        ("GET", "/metrics"),
    ],
)
async def test_the_socket_answers_our_questions_only(engine: PolicyEngine, method: str, path: str) -> None:
    assert engine.process is not None
    connector = aiohttp.UnixConnector(str(engine.process.socket))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.request(method, f"http://opa{path}", data=b"{}") as response,
    ):
        assert response.status == 401


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
async def test_memory_is_bounded(start: Any, caplog: pytest.LogCaptureFixture) -> None:
    states = States()
    async with start(on_state=states, memory_mib=128) as engine:
        await states.until(State.READY)
        greedy = query(call={"arguments": {"to": ["y" * 3000] * 15_000}})
        assert (await engine.decider.decide(greedy)).code is Code.POLICY_UNAVAILABLE
        await states.until(State.DOWN)
        await states.until(State.READY)
    assert "out of memory" in caplog.text or "cannot allocate memory" in caplog.text


async def test_broken_rego_names_file_and_line(start: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        async with start(broken="package taskgrant.authz\n\ndeny contains x if y\n"):
            pass
    assert f"{tmp_path}/policy/broken.rego:3: var x is unsafe" in caught.value.faults


@pytest.mark.parametrize(
    "expression",
    ['http.send({"url": "x", "method": "get"})', "opa.runtime()", "time.now_ns()", 'net.lookup_ip_addr("x")'],
)
async def test_builtins_that_no_policy_gets(start: Any, tmp_path: Path, expression: str) -> None:
    with pytest.raises(ConfigurationError, match="undefined function") as caught:
        async with start(reaching=f"package taskgrant.authz\n\ndeny contains x if x := {expression}\n"):
            pass
    assert caught.value.faults[0].startswith(f"{tmp_path}/policy/reaching.rego:3: ")


async def test_what_says_a_thing_twice_does_not_start(start: Any, tmp_path: Path) -> None:
    rule = "package taskgrant\n\nboundaries := {}\n"
    with pytest.raises(
        ConfigurationError, match="conflicting rule for data path taskgrant/boundaries"
    ) as caught:
        async with start(rule=rule):
            pass
    assert f"{tmp_path}/policy/rule.rego:3" in str(caught.value)
    policy(tmp_path / "policy", rule="package x\n")
    (tmp_path / "policy" / "twice.json").write_text(
        '{"taskgrant": {"profiles": {"mail/read": {"ask": false}}}}'
    )
    with pytest.raises(ConfigurationError, match="merge error"):
        async with start():
            pass


async def test_an_opa_that_runs_already(start: Any) -> None:
    states = States()
    async with start() as engine:
        config = PolicyConfig(opa=OpaConfig(socket=engine.process.socket))
        async with policy_engine(config, on_state=states) as external:
            await states.until(State.READY)
            assert (await external.decider.decide(QUERY)).allow
            assert (external.revision, external.waiting(), external.process) == ("external", [], None)
            _kill(engine, signal.SIGSTOP)
            await states.until(State.DOWN)
            assert not external.alive
            _kill(engine, signal.SIGCONT)
            await states.until(State.READY)


async def test_an_opa_that_does_not_answer_is_a_fault(tmp_path: Path) -> None:
    config = PolicyConfig(opa=OpaConfig(socket=tmp_path / "none.sock"))
    with pytest.raises(ConfigurationError, match="does not answer our questions"):
        async with policy_engine(config):
            pass


async def test_a_long_runtime_directory(opa_binary: Path, tmp_path: Path) -> None:
    runtime = tmp_path / ("long" * 30)
    runtime.mkdir()
    async with policy_engine(PolicyConfig(opa=OpaConfig(binary=str(opa_binary))), runtime) as engine:
        assert engine.alive
