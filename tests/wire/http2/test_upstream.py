"""gRPC to tool servers that say whatever they like: what comes back is whole and framed, or an error that says so."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded

from taskgrant.errors import Refused, Severed
from taskgrant.model.call import Headers, Outbound
from taskgrant.model.codes import Code
from taskgrant.model.ids import GrantId
from taskgrant.model.time import Instant
from taskgrant.wire.http2.upstream import GrpcUpstream
from tests.wire.support import SOON, Peer, Rig, Tool, echo, serving

MESSAGE = b"\0\0\0\0\2hi"
OK = (("grpc-status", "0"), ("grpc-message", "fine"), ("x-other", "stays"))
HEAD = ((":status", "200"), ("content-type", "application/grpc"))

Answer = Callable[[H2Connection, int, Peer], Awaitable[None]]


def answering(answer: Answer) -> Callable[[Peer, Tool], Awaitable[None]]:
    async def script(peer: Peer, tool: Tool) -> None:
        h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        h2.initiate_connection()
        await peer.send(h2.data_to_send())
        while data := await peer.reader.read(1 << 16):
            for event in h2.receive_data(data):
                if isinstance(event, RequestReceived):
                    fields = [f"{name}: {value}" for name, value in event.headers]  # type: ignore[str-bytes-safe]
                    tool.requests.append("\n".join(fields).encode())
                if isinstance(event, StreamEnded):
                    await answer(h2, event.stream_id or 0, peer)
            await peer.send(h2.data_to_send())

    return script


def saying(*chunks: bytes, head: Headers = HEAD, trailers: Headers = OK) -> Answer:
    async def answer(h2: H2Connection, stream: int, peer: Peer) -> None:
        h2.send_headers(stream, head, end_stream=not chunks and not trailers)
        for chunk in chunks:
            h2.send_data(stream, chunk)
        if trailers:
            h2.send_headers(stream, trailers, end_stream=True)
        elif chunks:
            h2.end_stream(stream)

    return answer


async def reset(h2: H2Connection, stream: int, peer: Peer) -> None:
    h2.send_headers(stream, HEAD)
    h2.reset_stream(stream)


async def close(h2: H2Connection, stream: int, peer: Peer) -> None:
    peer.writer.transport.abort()


def upstream(rig: Rig) -> GrpcUpstream:
    return GrpcUpstream(lambda issued, server: (rig.contexts[issued.serial], "tool.example.org"))


async def ask(rig: Rig, tool: Tool, body: bytes = MESSAGE):
    issued = rig.issue()
    rig.contexts[issued.serial].set_alpn_protocols(["h2"])
    out = Outbound("POST", f"https://127.0.0.1:{tool.port}/a.B/C", (("grpc-timeout", "5S"),), body)
    async with rig.leg() as leg:
        leg.narrow(GrantId("grant-1"), Instant(time.time() + 600))
        async with upstream(rig).send(out, issued, leg, rig.admit()) as reply:
            messages = []
            async for chunk in reply.chunks():
                messages.append(chunk)
                tool.reached.set()
            return messages, reply.trailers


@pytest.fixture
def h2_context(trust):
    context = trust.server()
    context.set_alpn_protocols(["h2"])
    return context


async def test_messages_come_whole_however_they_are_cut(rig, h2_context) -> None:
    async with serving(
        answering(saying(MESSAGE[:3], MESSAGE[3:] + MESSAGE, b"\0\0\0\0\0")), h2_context
    ) as tool:
        assert await ask(rig, tool) == ([MESSAGE, MESSAGE, b"\0\0\0\0\0"], OK[:2])
        fields = tool.requests[0].decode()
        assert ":path: /a.B/C" in fields
        assert "authorization: Bearer token-" in fields
        assert "grpc-timeout: 5S" in fields
        assert rig.admitted == ["call-1"]


async def test_a_request_larger_than_the_window_waits_for_it(rig, h2_context) -> None:
    async def credit(peer: Peer, tool: Tool) -> None:
        h2 = H2Connection(H2Configuration(client_side=False))
        h2.initiate_connection()
        while data := await peer.reader.read(1 << 16):
            for event in h2.receive_data(data):
                if isinstance(event, DataReceived):
                    tool.late += event.data or b""
                    h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
                if isinstance(event, StreamEnded):
                    h2.send_headers(event.stream_id or 0, (*HEAD, *OK), end_stream=True)
            await peer.send(h2.data_to_send())

    async with serving(credit, h2_context) as tool:
        body = b"\0" + (300_000).to_bytes(4, "big") + bytes(300_000)
        assert (await ask(rig, tool, body))[0] == []
        assert bytes(tool.late) == body


FAULTS: dict[str, tuple[Answer, Code]] = {
    "compressed": (saying(b"\1" + MESSAGE[1:]), Code.UNSUPPORTED),
    "too large": (saying(b"\0\xff\xff\xff\xff"), Code.TOO_LARGE),
    "half a message": (saying(MESSAGE[:-1]), Code.OUTCOME_UNKNOWN),
    "no status": (saying(MESSAGE, trailers=()), Code.OUTCOME_UNKNOWN),
    "nothing at all": (saying(trailers=()), Code.OUTCOME_UNKNOWN),
    "reset": (reset, Code.OUTCOME_UNKNOWN),
    "closed": (close, Code.OUTCOME_UNKNOWN),
    "no gRPC": (saying(head=((":status", "502"),)), Code.OUTCOME_UNKNOWN),
    "forbidden": (saying(head=((":status", "403"),)), Code.CREDENTIAL_REFUSED),
}


@pytest.mark.parametrize(("answer", "code"), FAULTS.values(), ids=FAULTS.keys())
async def test_what_is_no_whole_answer_is_an_error(rig, h2_context, answer: Answer, code: Code) -> None:
    async with serving(answering(answer), h2_context) as tool:
        with pytest.raises(Refused) as refused:
            await ask(rig, tool)
        assert refused.value.code == code
        assert len(tool.requests) == 1


async def test_a_server_without_http2_is_sent_nothing(rig, trust) -> None:
    async with serving(echo, trust.server()) as tool:
        with pytest.raises(Refused) as refused:
            await ask(rig, tool)
        assert (refused.value.code, tool.requests, rig.admitted) == (Code.UPSTREAM_UNREACHABLE, [], [])
    with pytest.raises(Refused) as refused:
        await ask(rig, tool)
    assert refused.value.code == Code.UPSTREAM_UNREACHABLE


async def test_severing_cuts_the_connection(rig, h2_context) -> None:
    async def stream(h2: H2Connection, stream: int, peer: Peer) -> None:
        h2.send_headers(stream, HEAD)
        h2.send_data(stream, MESSAGE)

    async with serving(answering(stream), h2_context) as tool:
        asking = asyncio.create_task(ask(rig, tool))
        await asyncio.wait_for(tool.reached.wait(), SOON)
        begun = await rig.legs.sever(lambda leg: True, Code.REVOKED, "over")
        with pytest.raises(Severed) as severed:
            await asking
        assert (severed.value.begun, begun) == (True, ("call-1",))
        await asyncio.wait_for(tool.over.wait(), SOON)
