"""In every state that a call can be in, a cut ends it promptly, and nothing more reaches the tool."""

import asyncio
import time

import pytest

from taskgrant.errors import Severed
from taskgrant.model.codes import Code
from taskgrant.model.credential import Issued
from taskgrant.model.event import Revocation
from taskgrant.model.ids import GrantId, TaskId
from taskgrant.model.time import Instant
from tests.wire.support import SOON, Peer, Rig, Script, Tool, Trust, echo, post, serving, whole


def revocation(*, task: str | None = None, grant: str | None = None, serial: str | None = None) -> Revocation:
    return Revocation(
        Instant(time.time()),
        "the task was completed",
        frozenset([TaskId(task)] if task else []),
        frozenset([GrantId(grant)] if grant else []),
        frozenset([serial] if serial else []),
    )


def streaming(head: bytes, piece: bytes) -> Script:
    async def script(peer: Peer, tool: Tool) -> None:
        tool.requests.append(await peer.request())
        await peer.send(head + piece)
        tool.late += await peer.gone()

    return script


async def silent(peer: Peer, tool: Tool) -> None:
    tool.requests.append(await peer.request())
    tool.reached.set()
    tool.late += await peer.gone()


@pytest.mark.parametrize(
    "script",
    [
        streaming(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"2\r\nab\r\n"),
        streaming(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n", b"ab"),
        streaming(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", b"ab"),
        silent,
    ],
    ids=["chunked", "content-length", "eof-delimited", "headers pending"],
)
async def test_a_call_that_a_tool_has_received(rig: Rig, trust: Trust, script: Script) -> None:
    async with serving(script, trust.server()) as tool:
        call = asyncio.create_task(rig.read(tool, rig.issue()))
        await asyncio.wait_for(tool.reached.wait(), SOON)
        begun = await asyncio.wait_for(rig.upstream.apply(revocation(task="task-1")), SOON)
        assert begun == ("call-1",)
        assert call.done()  # returning means severed
        with pytest.raises(Severed) as caught:
            await call
        assert (caught.value.code, caught.value.begun) == ("task_ended", True)
        await asyncio.wait_for(tool.over.wait(), SOON)
        assert (len(tool.requests), bytes(tool.late)) == (1, b"")
    assert len(rig.legs) == len(rig.upstream) == 0


async def test_a_handshake_that_is_never_answered(rig: Rig) -> None:
    async def mute(peer: Peer, tool: Tool) -> None:
        tool.requests.append(await peer.reader.read(5))  # of the ClientHello
        tool.reached.set()
        await peer.gone()

    async with serving(mute, None) as tool:
        call = asyncio.create_task(rig.read(tool, rig.issue()))
        await asyncio.wait_for(tool.reached.wait(), SOON)
        assert await asyncio.wait_for(rig.upstream.apply(revocation(task="task-1")), SOON) == ()
        with pytest.raises(Severed) as caught:
            await call
        assert not caught.value.begun
        await asyncio.wait_for(tool.over.wait(), SOON)
    assert rig.admitted == []


async def test_an_upload_that_the_tool_does_not_read(rig: Rig, trust: Trust) -> None:
    release = asyncio.Event()
    size = 30 << 20

    async def stalled(peer: Peer, tool: Tool) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        tool.reached.set()
        await release.wait()
        tool.late += await peer.gone()

    async with serving(stalled, trust.server()) as tool:
        call = asyncio.create_task(rig.read(tool, rig.issue(), post(tool, b"x" * size)))
        await asyncio.wait_for(tool.reached.wait(), SOON)
        begun = await asyncio.wait_for(rig.upstream.apply(revocation(task="task-1")), SOON)
        assert begun == ("call-1",)
        release.set()
        with pytest.raises(Severed):
            await call
        await asyncio.wait_for(tool.over.wait(), SOON)
        assert len(tool.late) < size  # what the kernel held, and no more


async def test_a_use_that_is_being_recorded(rig: Rig, trust: Trust) -> None:
    recording = asyncio.Event()

    async def admit() -> None:
        recording.set()
        await asyncio.Event().wait()

    async def run(tool: Tool) -> None:
        async with rig.leg() as leg, rig.upstream.send(post(tool), rig.issue(), leg, admit):
            raise AssertionError("nothing was admitted")

    async with serving(echo, trust.server()) as tool:
        call = asyncio.create_task(run(tool))
        await asyncio.wait_for(recording.wait(), SOON)
        assert await asyncio.wait_for(rig.upstream.apply(revocation(task="task-1")), SOON) == ()
        with pytest.raises(Severed) as caught:
            await call
        assert not caught.value.begun
        await asyncio.wait_for(tool.over.wait(), SOON)
        assert tool.requests == []


async def test_a_call_that_has_not_begun_to_connect(rig: Rig, trust: Trust) -> None:
    async def too_late(tool: Tool) -> None:
        async with rig.leg() as leg:
            await rig.upstream.apply(revocation(task="task-1"))
            async with rig.upstream.send(post(tool), rig.issue(), leg, rig.admit()):
                raise AssertionError("sent")

    async with serving(echo, trust.server()) as tool:
        with pytest.raises(Severed) as caught:
            await too_late(tool)
        assert not caught.value.begun
        assert (tool.requests, rig.admitted) == ([], [])


async def test_a_connection_that_idles_in_the_pool(rig: Rig, trust: Trust) -> None:
    async with serving(echo, trust.server()) as tool:
        issued = rig.issue()
        assert await rig.read(tool, issued) == (200, b'{"ok":true}')
        assert not tool.over.is_set()
        await asyncio.wait_for(rig.upstream.apply(revocation(task="task-1", serial=issued.serial)), SOON)
        await asyncio.wait_for(tool.over.wait(), SOON)
    assert len(rig.upstream) == 0


async def test_a_reader_that_does_not_read(rig: Rig, trust: Trust) -> None:
    async def flood(peer: Peer, tool: Tool) -> None:
        tool.requests.append(await peer.request())
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            await peer.send(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")

    async def run(tool: Tool) -> None:
        async with rig.leg() as leg, rig.upstream.send(post(tool), rig.issue(), leg, rig.admit()) as reply:
            async for _ in reply.chunks():
                tool.reached.set()
                await asyncio.Event().wait()  # the agent's side is full

    async with serving(flood, trust.server()) as tool:
        call = asyncio.create_task(run(tool))
        await asyncio.wait_for(tool.reached.wait(), SOON)
        await asyncio.wait_for(rig.upstream.apply(revocation(task="task-1")), SOON)
        with pytest.raises(Severed):
            await call
        await asyncio.wait_for(tool.over.wait(), SOON)


async def test_one_of_two_grants_on_one_credential(rig: Rig, trust: Trust) -> None:
    go = asyncio.Event()

    async def slow(peer: Peer, tool: Tool) -> None:
        tool.requests.append(await peer.request())
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")
        if len(tool.requests) == 2:
            tool.reached.set()
        await go.wait()
        await peer.send(b"1\r\nb\r\n0\r\n\r\n")

    async with serving(slow, trust.server()) as tool:
        issued = rig.issue()
        doomed = asyncio.create_task(rig.read(tool, issued, call="call-1", grant="grant-1"))
        spared = asyncio.create_task(rig.read(tool, issued, call="call-2", grant="grant-2"))
        await asyncio.wait_for(tool.reached.wait(), SOON)
        cut = revocation(grant="grant-1", serial=issued.serial)
        assert await asyncio.wait_for(rig.upstream.apply(cut), SOON) == ("call-1",)
        with pytest.raises(Severed) as caught:
            await doomed
        assert caught.value.code == "revoked"
        go.set()
        assert await asyncio.wait_for(spared, SOON) == (200, b"ab")
    assert len(rig.upstream) == 0  # its credential named the ended grant: closed with its last call


async def test_expiry_is_the_same_path(rig: Rig, trust: Trust) -> None:
    async def run(tool: Tool) -> None:
        async with rig.leg() as leg, rig.upstream.send(post(tool), rig.issue(), leg, rig.admit()) as reply:
            leg.narrow(GrantId("grant-1"), Instant(time.time() + 0.05))
            async for _ in reply.chunks():
                pass

    script = streaming(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\na\r\n")
    async with serving(script, trust.server()) as tool:
        with pytest.raises(Severed) as caught:
            await asyncio.wait_for(run(tool), SOON)
        assert (caught.value.code, caught.value.begun) == ("grant_expired", True)
        await asyncio.wait_for(tool.over.wait(), SOON)


async def test_a_connection_belongs_to_the_call_that_uses_it_now(rig: Rig, trust: Trust) -> None:
    read, go = asyncio.Event(), asyncio.Event()

    async def linger(tool: Tool, issued: Issued) -> None:
        async with rig.leg("call-1") as leg:
            async with rig.upstream.send(post(tool), issued, leg, rig.admit()) as reply:
                assert [chunk async for chunk in reply.chunks()] == [b'{"ok":true}']
            read.set()
            await asyncio.Event().wait()

    async def slow(peer: Peer, tool: Tool) -> None:
        tool.requests.append(await peer.request())
        await peer.send(whole(b'{"ok":true}'))
        tool.requests.append(await peer.request())
        tool.reached.set()
        await go.wait()
        await peer.send(whole(b"second"))

    async with serving(slow, trust.server()) as tool:
        issued = rig.issue()
        first = asyncio.create_task(linger(tool, issued))
        await asyncio.wait_for(read.wait(), SOON)
        second = asyncio.create_task(rig.read(tool, issued, call="call-2"))
        await asyncio.wait_for(tool.reached.wait(), SOON)
        await asyncio.wait_for(rig.legs.sever(lambda leg: leg.call == "call-1", Code.REVOKED, "a test"), SOON)
        with pytest.raises(Severed):
            await first
        go.set()
        assert await asyncio.wait_for(second, SOON) == (200, b"second")
        assert tool.connections == 1
