"""Revocation is total and prompt: in every state that a call can be in, and by every way of ending it.

Seen from outside: the tool server and the agent are the test's own sockets, the sidecar is a process.
"""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from taskgrant.client import TaskgrantClient
from taskgrant.model.event import Ended, ScopeKind
from taskgrant.model.task import Started
from tests.e2e.office import READ, SERVER, Office
from tests.e2e.tools import (
    EVENT_STREAM,
    LIST_TOOLS,
    PLAIN,
    Copy,
    World,
    call,
    chunk,
    event,
    get,
    grant,
    initialize,
    legacy_call,
    progress,
    send,
    until,
    whole,
    world,
)
from tests.wire.support import SOON, Script

LATE = b"later"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, opa_binary: Any) -> Any:
    with world(tmp_path_factory.mktemp("severing"), opa_binary) as made:
        yield made


# --- ways to end a call ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """How access ends: the limits that its grant has, what is done, and the code of calls that had not begun."""

    name: str
    code: str
    act: Callable[[TaskgrantClient, Started], Awaitable[Ended | None]]
    limits: tuple[tuple[str, float], ...] = ()


async def _complete(client: TaskgrantClient, task: Started) -> Ended:
    return await client.complete(task.task.id)


async def _cancel(client: TaskgrantClient, task: Started) -> Ended:
    return await client.cancel(task.task.id)


async def _revoke(client: TaskgrantClient, task: Started) -> Ended:
    return await client.revoke(task.grants[0].id)


async def _freeze(client: TaskgrantClient, task: Started) -> Ended:
    ended = await client.freeze(ScopeKind.TASK, task.task.id)
    await client.unfreeze(ScopeKind.TASK, task.task.id)  # revives nothing
    return ended


async def _wait(client: TaskgrantClient, task: Started) -> None:
    """Time does it."""


WAYS = [
    Way("complete", "task_ended", _complete),
    Way("cancel", "task_ended", _cancel),
    Way("revoke", "revoked", _revoke),
    Way("freeze", "task_ended", _freeze),
    Way("expiry", "grant_expired", _wait, (("expires_in", 2.4),)),
]
ways = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)


@contextlib.asynccontextmanager
async def started(running: World, server: str, *tools: str, way: Way | None = None) -> AsyncIterator[Started]:
    limits: dict[str, Any] = dict(way.limits) if way else {}
    async with running.orchestrator as client:
        task = await client.start({"purpose": "to be ended", "grants": [grant(server, *tools, **limits)]})
        try:
            yield task
        finally:
            with contextlib.suppress(Exception):
                await client.cancel(task.task.id)


async def end(running: World, way: Way, task: Started) -> Ended | None:
    async with running.orchestrator as client:
        return await asyncio.wait_for(way.act(client, task), SOON)


# --- states of a call ------------------------------------------------------------------------------------------------


def half(head: bytes, piece: bytes, rest: bytes) -> Script:
    """Answers in part; sends the rest when it is told to, which is too late."""

    async def script(peer: Any, tool: Any) -> None:
        await tool.take(peer)
        await peer.send(head + piece)
        tool.reached.set()
        await tool.go.wait()
        with contextlib.suppress(ConnectionError):
            while True:
                await peer.send(rest)
                await asyncio.sleep(0)

    return script


async def silent(peer: Any, tool: Any) -> None:
    await tool.take(peer)
    tool.reached.set()
    tool.late += await peer.gone()


async def mute(peer: Any, tool: Any) -> None:
    """Accepts TCP, reads, and says nothing."""
    await peer.more()
    tool.reached.set()
    while await peer.more():
        pass


JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
BIG = b'"' + b"x" * (1 << 21)  # more than is held back to be sent in one piece
HALVES = {
    "chunked": (JSON + b"Transfer-Encoding: chunked\r\n\r\n", chunk(b'{"a":'), chunk(LATE)),
    "content-length": (JSON + b"Content-Length: 1000000\r\n\r\n", b'{"a":', LATE),
    "eof-delimited": (JSON + b"Connection: close\r\n\r\n", b'{"a":', LATE),
}
BEGUN = {
    "chunked": (JSON + b"Transfer-Encoding: chunked\r\n\r\n", chunk(BIG), chunk(LATE)),
    "content-length": (JSON + b"Content-Length: 10000000\r\n\r\n", BIG, LATE),
    "eof-delimited": (JSON + b"Connection: close\r\n\r\n", BIG, LATE),
}


@ways
@pytest.mark.parametrize("framing", HALVES)
async def test_an_answer_of_which_nothing_was_relayed_yet(running: World, way: Way, framing: str) -> None:
    async with (
        running.tool(PLAIN, half(*HALVES[framing])) as tool,
        started(running, PLAIN, "read", way=way) as task,
    ):
        asking = await running.ask(get(), task.handle)
        await asyncio.wait_for(tool.reached.wait(), SOON)
        ended = await end(running, way, task)
        if ended is not None:
            tool.go.set()
            assert len(ended.begun) == 1
        answered = await asyncio.wait_for(asking.whole(), SOON)
        tool.go.set()
        await asyncio.wait_for(tool.over.wait(), SOON)
        assert (answered.status, answered.code, answered.whole) == (504, "outcome_unknown", True)
        assert LATE not in answered.body
        assert len(tool.requests) == 1


@ways
@pytest.mark.parametrize("framing", BEGUN)
async def test_an_answer_that_was_relayed_in_part(running: World, way: Way, framing: str) -> None:
    async with (
        running.tool(PLAIN, half(*BEGUN[framing])) as tool,
        started(running, PLAIN, "read", way=way) as task,
    ):
        asking = await running.ask(get(), task.handle)
        await asking.until(b"xxxx")
        await end(running, way, task)
        if way.code != "grant_expired":
            tool.go.set()
        answered = await asyncio.wait_for(asking.whole(), SOON)
        tool.go.set()
        await asyncio.wait_for(tool.over.wait(), SOON)
        assert not answered.whole  # the client can tell that it was cut
        assert LATE not in answered.body
        assert len(tool.requests) == 1


@ways
async def test_a_stream_of_events(running: World, way: Way) -> None:
    """The last event is whole, and says that the outcome is unknown; what comes after it never arrives."""
    first = chunk(event(progress(1)) + event(progress(2))[:20])  # and a half one
    script = half(EVENT_STREAM, first, chunk(event(progress(2))[20:] + event(progress(99))))
    async with running.tool("modern", script) as tool, started(running, "modern", "work", way=way) as task:
        asking = await running.ask(call(), task.handle)
        await asking.until(b'"progress": 1')
        ended = await end(running, way, task)
        if ended is not None:
            tool.go.set()
            assert len(ended.begun) == 1
        answered = await asyncio.wait_for(asking.whole(), SOON)
        tool.go.set()
        await asyncio.wait_for(tool.over.wait(), SOON)
        assert (answered.status, answered.whole, answered.code) == (200, True, "outcome_unknown")
        assert [message.get("method") for message in answered.events] == ["notifications/progress", None]
        assert answered.events[-1]["id"] == 1
        assert len(tool.requests) == 1


@ways
async def test_headers_that_are_pending(running: World, way: Way) -> None:
    async with running.tool(PLAIN, silent) as tool, started(running, PLAIN, "read", way=way) as task:
        asking = await running.ask(get(), task.handle)
        await asyncio.wait_for(tool.reached.wait(), SOON)
        await end(running, way, task)
        answered = await asyncio.wait_for(asking.whole(), SOON)
        await asyncio.wait_for(tool.over.wait(), SOON)
        assert (answered.code, len(tool.requests), bytes(tool.late)) == ("outcome_unknown", 1, b"")


@ways
async def test_a_handshake_that_is_pending(running: World, way: Way) -> None:
    """Nothing of the call went out: the denial is one, and the use is given back."""
    async with running.tool(PLAIN, mute, tls=False) as tool, started(running, PLAIN, "read", way=way) as task:
        asking = await running.ask(get(), task.handle)
        await asyncio.wait_for(tool.reached.wait(), SOON)
        ended = await end(running, way, task)
        answered = await asyncio.wait_for(asking.whole(), SOON)
        await asyncio.wait_for(tool.over.wait(), SOON)
        assert answered.code == way.code
        assert ended is None or ended.begun == ()
        async with running.orchestrator as client:
            assert (await client.show_grant(task.grants[0].id)).used == 0


@ways
async def test_a_session_that_is_being_opened_and_a_call_that_waits_for_it(running: World, way: Way) -> None:
    """The server takes its time over ``initialize``: neither call has been sent, so both are denied."""
    async with running.tool("legacy", silent) as tool, started(running, "legacy", "work", way=way) as task:
        session = (await running.answer(initialize(), task.handle)).headers["mcp-session-id"]
        asking = [await running.ask(legacy_call(session, id=number), task.handle) for number in (1, 2)]
        await asyncio.wait_for(tool.reached.wait(), SOON)
        ended = await end(running, way, task)
        answered = [await asyncio.wait_for(each.whole(), SOON) for each in asking]
        await asyncio.wait_for(tool.over.wait(), SOON)
        assert [each.code for each in answered] == [way.code, way.code]
        assert ended is None or ended.begun == ()
        assert len(tool.requests) == 1
        assert b"tools/call" not in tool.requests[0]


@ways
async def test_an_upload_that_stalls(running: World, way: Way) -> None:
    """A tool that reads on afterwards gets what its own buffers held, not what the sidecar and its kernel held."""
    size = 1 << 20

    async def stalls(peer: Any, tool: Any) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.writer.transport.pause_reading()
        tool.reached.set()
        await tool.go.wait()
        peer.writer.transport.resume_reading()
        tool.late += await peer.gone()

    async with (
        running.tool(PLAIN, stalls, receive_buffer=1 << 14) as tool,
        started(running, PLAIN, "write", way=way) as task,
    ):
        asking = await running.ask(send("POST", "/write", {"text": "x" * size}), task.handle)
        await asyncio.wait_for(tool.reached.wait(), SOON)
        await asyncio.sleep(0.1)  # as much as the kernel takes is on its way
        await end(running, way, task)
        answered = await asyncio.wait_for(asking.whole(), SOON)
        tool.go.set()
        await asyncio.wait_for(tool.over.wait(), SOON)
        assert answered.code == "outcome_unknown"
        assert len(tool.late) < size // 2


@pytest.mark.parametrize(
    "way", [*WAYS, Way("idle", "", _wait, (("idle_timeout", 0.5),))], ids=lambda w: w.name
)
async def test_a_connection_that_idles_in_the_pool(running: World, way: Way) -> None:
    async def kept(peer: Any, tool: Any) -> None:
        await tool.take(peer)
        await peer.send(whole(b"{}", "Content-Type: application/json"))
        tool.reached.set()
        tool.late += await peer.gone()

    async with running.tool(PLAIN, kept) as tool, started(running, PLAIN, "read", way=way) as task:
        assert (await running.answer(get(), task.handle)).code == "allowed"
        assert not tool.over.is_set()
        began = time.monotonic()
        await end(running, way, task)
        await asyncio.wait_for(tool.over.wait(), 3.5)
        if not way.limits:
            assert time.monotonic() - began < 2  # and not because it had idled for long
        assert bytes(tool.late) == b""
        assert (await running.answer(get(), task.handle)).code != "allowed"
        assert tool.connections == 1


@ways
async def test_a_client_that_does_not_read(running: World, way: Way) -> None:
    """Ending returns all the same; nothing waits for the client."""

    async def flood(peer: Any, tool: Any) -> None:
        await tool.take(peer)
        await peer.send(EVENT_STREAM)
        number = 0
        while not tool.go.is_set():
            number += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(
                    peer.send(chunk(event({**progress(number), "pad": "x" * 50_000}))), 0.3
                )
                continue
            tool.reached.set()
            await tool.go.wait()
        with contextlib.suppress(ConnectionError):
            while True:
                await peer.send(chunk(event({**progress(0), "pad": LATE.decode()})))

    async with running.tool("modern", flood) as tool, started(running, "modern", "work", way=way) as task:
        asking = await running.ask(call(), task.handle)
        asking.stop_reading()
        if way.limits:
            await asyncio.wait_for(_ended(running, task), SOON)
        else:
            await asyncio.wait_for(tool.reached.wait(), SOON)
            await end(running, way, task)
        tool.go.set()
        await asyncio.wait_for(tool.over.wait(), SOON)
        asking.resume_reading()
        answered = await asyncio.wait_for(asking.whole(), SOON)
        assert LATE not in answered.body


async def _ended(running: World, task: Started) -> None:
    async with running.orchestrator as client:
        while (await client.show_grant(task.grants[0].id)).state.live:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)


async def test_the_end_of_the_tasks_own_time(running: World) -> None:
    """A task's deadline cuts what runs, whatever its grants say."""
    script = half(EVENT_STREAM, chunk(event(progress(1))), chunk(event(progress(99))))
    async with running.tool("modern", script) as tool, running.orchestrator as client:
        asked = {"purpose": "short", "grants": [grant("modern", "work", expires_in=600)], "expires_in": 2.4}
        task = await client.start(asked)
        asking = await running.ask(call(), task.handle)
        answered = await asyncio.wait_for(asking.whole(), SOON)
        tool.go.set()
        await asyncio.wait_for(tool.over.wait(), SOON)
        assert (answered.whole, answered.code, len(answered.events)) == (True, "outcome_unknown", 2)
        assert not (await client.show_task(task.task.id))[0].live


async def test_a_call_that_takes_longer_than_the_idle_time_out(running: World) -> None:
    """While a call is in flight, a grant does not idle; it does from its end on."""

    async def slow(peer: Any, tool: Any) -> None:
        await tool.take(peer)
        await asyncio.sleep(1.2)
        await peer.send(whole(b"{}", "Content-Type: application/json"))
        await peer.gone()

    way = Way("idle", "", _wait, (("idle_timeout", 0.6),))
    async with running.tool(PLAIN, slow), started(running, PLAIN, "read", way=way) as task:
        assert (await running.answer(get(), task.handle)).code == "allowed"
        await asyncio.wait_for(_ended(running, task), SOON)
        assert (await running.answer(get(), task.handle)).code == "grant_expired"


# --- what is not covered goes on -------------------------------------------------------------------------------------


async def test_one_of_two_grants_on_a_credential(running: World) -> None:
    """Its calls are cut, the other's are not, and the credential is remade."""

    async def slow(peer: Any, tool: Any) -> None:
        while True:
            request = await tool.take(peer)
            if b"/other/slow" in request:
                tool.reached.set()
                await tool.go.wait()
            if b"/read/slow" in request:
                await peer.gone()
            await peer.send(
                whole(json.dumps({"serial": peer.serial}).encode(), "Content-Type: application/json")
            )

    async with running.tool(PLAIN, slow) as tool, running.orchestrator as client:
        asked = [grant(PLAIN, "read"), grant(PLAIN, "other")]
        task = await client.start({"purpose": "two grants", "grants": asked})
        cut = await running.ask(get("/read/slow"), task.handle)
        stays = await running.ask(get("/other/slow"), task.handle)
        await asyncio.wait_for(tool.reached.wait(), SOON)
        await until(lambda: len(tool.requests) == 2)
        ended = await client.revoke(task.grants[0].id)
        assert len(ended.begun) == 1
        assert (await asyncio.wait_for(cut.whole(), SOON)).code == "outcome_unknown"
        tool.go.set()
        unharmed = await asyncio.wait_for(stays.whole(), SOON)
        assert (unharmed.status, unharmed.code) == (200, "allowed")
        again = await running.answer(get("/other/1"), task.handle)
        assert json.loads(again.body)["serial"] != json.loads(unharmed.body)["serial"]
        assert (await running.answer(get("/read/1"), task.handle)).code == "revoked"
        await client.complete(task.task.id)


async def test_another_task_goes_on(running: World) -> None:
    async with (
        running.tool(PLAIN, silent_but(b"/read/slow")) as tool,
        started(running, PLAIN, "read") as one,
        started(running, PLAIN, "read") as other,
    ):
        cut = await running.ask(get("/read/slow"), one.handle)
        await asyncio.wait_for(tool.reached.wait(), SOON)
        await end(running, WAYS[0], one)
        assert (await asyncio.wait_for(cut.whole(), SOON)).code == "outcome_unknown"
        assert (await running.answer(get(), other.handle)).code == "allowed"


def silent_but(path: bytes) -> Script:
    """Answers at once, except for this path."""

    async def script(peer: Any, tool: Any) -> None:
        while True:
            if path in await tool.take(peer):
                tool.reached.set()
                await peer.gone()
                return
            await peer.send(whole(b"{}", "Content-Type: application/json"))

    return script


# --- the guard -------------------------------------------------------------------------------------------------------


async def test_sessions_that_were_opened_under_the_task(
    office: Office, orchestrator: TaskgrantClient
) -> None:
    """An earlier task's session at the tool server is of no use to a later one, nor to anybody."""
    first = await orchestrator.start({"purpose": "opens a session", "grants": [READ]})
    copy = await Copy.of(orchestrator, first.task.id, SERVER)
    session = await copy.open_session(office.guard_port)
    assert (await copy.post(office.guard_port, LIST_TOOLS, session=session))[0] == 200
    assert (await orchestrator.complete(first.task.id)).unacknowledged == ()
    second = await orchestrator.start({"purpose": "finds a session", "grants": [READ]})
    other = await Copy.of(orchestrator, second.task.id, SERVER)
    status, _, text = await other.post(office.guard_port, LIST_TOOLS, session=session)
    assert (status, json.loads(text)["code"]) == (404, "not_found")
    status, _, text = await copy.post(office.guard_port, LIST_TOOLS, session=session)
    assert (status, json.loads(text)["code"]) == (401, "revoked")


async def test_a_guard_that_stands_still(office: Office, orchestrator: TaskgrantClient) -> None:
    """Ending waits for its staleness bound and names it; when it goes on, it lets nobody in."""
    task = await orchestrator.start({"purpose": "to be ended", "grants": [READ]})
    copy = await Copy.of(orchestrator, task.task.id, SERVER)
    session = await copy.open_session(office.guard_port)
    os.kill(office.guard.pid, signal.SIGSTOP)
    try:
        asking = asyncio.create_task(copy.post(office.guard_port, LIST_TOOLS, session=session))
        began = time.monotonic()
        ended = await orchestrator.complete(task.task.id)
        took = time.monotonic() - began
    finally:
        os.kill(office.guard.pid, signal.SIGCONT)
    assert len(ended.unacknowledged) == 1
    assert f"guard/{SERVER}/" in ended.unacknowledged[0]
    assert 0.5 < took < 6  # the bound is 2 s
    status, _, _ = await asyncio.wait_for(asking, SOON)  # came while it stood still, is answered afterwards
    assert status in (401, 503)
    while status == 503:  # it does not know yet what has been revoked
        status, _, text = await copy.post(office.guard_port, LIST_TOOLS, session=session)
        assert status in (401, 503), text
    assert status == 401
