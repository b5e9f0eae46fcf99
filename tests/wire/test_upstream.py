"""One permit, one upstream request; what goes out, what comes back, and what a failure says."""

import asyncio
from typing import cast

import pytest
from aiohttp.client_proto import ResponseHandler

from taskgrant.errors import Refused
from taskgrant.model.call import Outbound
from taskgrant.model.credential import Issued
from tests.wire.support import SOON, Peer, Rig, Script, Tool, Trust, echo, post, serving, whole


async def test_what_goes_out_and_what_comes_back(rig: Rig, trust: Trust) -> None:
    async def script(peer: Peer, tool: Tool) -> None:
        tool.requests.append(await peer.request())
        headers = (
            b"Content-Type: a/b",
            b"Set-Cookie: a=b",
            b"WWW-Authenticate: Bearer",
            b"Mcp-Session-Id: s",
            b"X: y",
        )
        await peer.send(whole(b"hello", *headers))

    async with serving(script, trust.server()) as tool:
        issued = rig.issue()
        async with rig.leg() as leg, rig.upstream.send(post(tool), issued, leg, rig.admit()) as reply:
            assert (reply.status, reply.serial) == (200, issued.serial)
            assert reply.headers == (("content-type", "a/b"), ("mcp-session-id", "s"))
            assert [chunk async for chunk in reply.chunks()] == [b"hello"]
    line, *headers = tool.requests[0].partition(b"\r\n\r\n")[0].decode().lower().split("\r\n")
    assert line == "post /mcp?a=%2f http/1.1"
    assert sorted(headers) == [
        "accept-encoding: identity",
        f"authorization: bearer {issued.token}",
        "content-length: 2",
        "content-type: application/json",
        f"host: 127.0.0.1:{tool.port}",
        "user-agent: taskgrant",
    ]


@pytest.mark.parametrize("name", ["authorization", "host", "cookie", "transfer-encoding", "content-length"])
async def test_headers_that_are_not_a_codec_s(rig: Rig, trust: Trust, name: str) -> None:
    async with serving(echo, trust.server()) as tool:
        out = Outbound("POST", f"https://127.0.0.1:{tool.port}/", ((name, "x"),), b"")
        with pytest.raises(Refused) as caught:
            await rig.read(tool, rig.issue(), out)
        assert (caught.value.code, tool.connections) == ("malformed", 0)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/", "https://user@127.0.0.1:1/", "https://u:p@127.0.0.1:1/"]
)
async def test_urls_that_are_not_called(rig: Rig, url: str) -> None:
    with pytest.raises(Refused) as caught:
        await rig.read(Tool(echo), rig.issue(), Outbound("GET", url, (), b""))
    assert (caught.value.code, rig.admitted) == ("unsupported", [])


async def dies(peer: Peer, tool: Tool) -> None:
    """The first request of a connection is answered; the second is read, and the connection dropped."""
    tool.requests.append(await peer.request())
    await peer.send(whole(b"ok"))
    tool.requests.append(await peer.request())


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
async def test_a_call_is_never_sent_again(rig: Rig, trust: Trust, method: str) -> None:
    async with serving(dies, trust.server()) as tool:
        issued, out = rig.issue(), post(tool, b"", method)
        assert await rig.read(tool, issued, out) == (200, b"ok")
        with pytest.raises(Refused) as caught:
            await rig.read(tool, issued, out)
        assert (caught.value.code, caught.value.details) == ("outcome_unknown", {"begun": True})
        assert (len(tool.requests), tool.connections, len(rig.admitted)) == (2, 1, 2)


def answers(raw: bytes) -> Script:
    async def script(peer: Peer, tool: Tool) -> None:
        tool.requests.append(await peer.request())
        await peer.send(raw)
        peer.writer.close()
        await peer.gone()

    return script


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabc",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
    ],
)
async def test_an_answer_that_is_cut_short_is_an_error(rig: Rig, trust: Trust, raw: bytes) -> None:
    async with serving(answers(raw), trust.server()) as tool:
        with pytest.raises(Refused) as caught:
            await asyncio.wait_for(rig.read(tool, rig.issue()), SOON)
        assert (caught.value.code, caught.value.details) == ("outcome_unknown", {"begun": True})
        assert (len(tool.requests), len(rig.admitted)) == (1, 1)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n",
    ],
)
async def test_answers_that_are_not_understood(rig: Rig, trust: Trust, head: bytes) -> None:
    async with serving(answers(head + b"content-length: 0\r\n\r\n"), trust.server()) as tool:
        with pytest.raises(Refused) as caught:
            await asyncio.wait_for(rig.read(tool, rig.issue()), SOON)
        assert (caught.value.code, caught.value.details) == ("unsupported", {"begun": True})


async def test_a_redirect_is_not_followed(rig: Rig, trust: Trust) -> None:
    raw = b"HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n"
    async with serving(answers(raw), trust.server()) as tool:
        assert await rig.read(tool, rig.issue(), post(tool, b"", "GET")) == (302, b"")
        assert len(tool.requests) == 1


async def test_a_server_that_is_not_there(rig: Rig, trust: Trust) -> None:
    async with serving(echo, trust.server()) as tool:
        pass
    with pytest.raises(Refused) as caught:
        await rig.read(tool, rig.issue())
    assert (caught.value.code, caught.value.details, rig.admitted) == ("upstream_unreachable", {}, [])


async def test_a_server_that_another_trust_domain_vouches_for(rig: Rig) -> None:
    async with serving(echo, Trust().server()) as tool:
        with pytest.raises(Refused) as caught:
            await rig.read(tool, rig.issue())
        assert (caught.value.code, rig.admitted, tool.requests) == ("upstream_unreachable", [], [])


async def test_a_use_that_is_refused_costs_nothing(rig: Rig, trust: Trust) -> None:
    async def refuse() -> None:
        raise Refused("uses_exhausted", "none left")

    async def run(tool: Tool, issued: Issued) -> None:
        async with rig.leg() as leg:
            try:
                async with rig.upstream.send(post(tool), issued, leg, refuse):
                    raise AssertionError("sent")
            finally:
                assert not leg.begun

    async with serving(echo, trust.server()) as tool:
        issued = rig.issue()
        with pytest.raises(Refused) as caught:
            await run(tool, issued)
        assert (caught.value.code, tool.requests) == ("uses_exhausted", [])
        # Nothing was written, so that the next call may use the connection.
        assert await rig.read(tool, issued) == (200, b'{"ok":true}')
        assert tool.connections == 1


async def test_an_answer_that_nobody_asked_for_is_given_to_nobody(rig: Rig, trust: Trust) -> None:
    stuffed = asyncio.Event()

    async def script(peer: Peer, tool: Tool) -> None:
        first = tool.connections == 1
        tool.requests.append(await peer.request())
        await peer.send(whole(b"right"))
        if first:
            await stuffed.wait()
            await peer.send(whole(b"WRONG"))
            tool.late += await peer.gone()

    async with serving(script, trust.server()) as tool:
        issued = rig.issue()
        assert await rig.read(tool, issued) == (200, b"right")
        stuffed.set()
        pool = next(iter(rig.upstream._pools.values()))
        transport = next(iter(pool._connector._seen))
        while not cast(ResponseHandler, transport.get_protocol())._buffer:  # noqa: ASYNC110 - the kernel signals no arrival
            await asyncio.sleep(0.001)
        assert await rig.read(tool, issued) == (200, b"right")
        assert tool.connections == 2


async def test_credentials_do_not_share_connections(rig: Rig, trust: Trust) -> None:
    async with serving(echo, trust.server()) as tool:
        for task in ("task-1", "task-2"):
            issued = rig.issue(task)
            for _ in range(2):
                await rig.read(tool, issued)
        assert (tool.connections, len(rig.upstream)) == (2, 2)


async def test_a_credential_that_was_remade_serves_until_its_last_call_is_done(
    rig: Rig, trust: Trust
) -> None:
    async with serving(echo, trust.server()) as tool:
        issued = rig.issue()
        await rig.read(tool, issued)
        rig.upstream.retire(issued.serial)
        del rig.contexts[issued.serial]
        assert await rig.read(tool, issued) == (200, b'{"ok":true}')
        assert tool.connections == 1
