"""The way back: whole messages and whole events, nothing of the transport, and no end where there was none."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from taskgrant.errors import Refused
from taskgrant.model.call import Headers
from taskgrant.model.ports import Duplex
from taskgrant.proxy import relay


class Reply:
    def __init__(
        self, *chunks: bytes, status: int = 200, kind: str = "application/json", **headers: str
    ) -> None:
        self.status = status
        more = tuple((name.replace("_", "-"), value) for name, value in headers.items())
        self.headers = ((("content-type", kind),) if kind else ()) + more
        self.serial = "1"
        self.duplex: Duplex | None = None
        self.subprotocol: str | None = None
        self.trailers: Headers = ()
        self._chunks = chunks

    async def chunks(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk


class Client:
    """An exchange that keeps what a client would see."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.begun = False

    async def begin(self, status: int, headers: Any) -> None:
        self.begun = True
        self.seen.append((status, dict(headers)))

    async def write(self, data: bytes) -> None:
        self.seen.append(data)

    async def end(self, how: str) -> None:
        self.seen.append(how)

    async def answer(self, answer: Any) -> None:
        self.seen.append((answer.status, answer.content_type, answer.body, dict(answer.headers)))


def client() -> Any:
    return Client()


async def unchanged(message: Any) -> Any:
    return message


async def test_a_small_answer_is_sent_in_one_piece():
    exchange = client()
    heard: list[object] = []
    reply = Reply(b"{", b"}", cache_control="no-store", mcp_session_id="secret", set_cookie="a=b")
    await relay.relay(reply, exchange, heard.append)
    assert exchange.seen == [(200, "application/json", b"{}", {"cache-control": "no-store"})]
    assert heard == [b"{}"]


async def test_a_large_answer_is_passed_on_as_it_comes():
    exchange = client()
    heard: list[object] = []
    pieces = [b"a" * 700_000, b"b" * 700_000, b"c"]
    await relay.relay(Reply(*pieces, kind="text/plain"), exchange, heard.append)
    assert exchange.seen == [(200, {"content-type": "text/plain"}), pieces[0] + pieces[1], b"c", "clean"]
    assert heard == []


@pytest.mark.parametrize("cut", range(1, 30))
async def test_events_are_relayed_whole_however_they_are_cut(cut):
    events = [b'data: {"method":"a","id":1}\n\n', b": hi\n\n", b'id: 2\ndata: {"id":9,"result":{}}\n\n']
    stream = b"".join(events)
    exchange = client()
    asked: list[object] = []
    heard: list[object] = []
    pieces = [stream[at : at + cut] for at in range(0, len(stream), cut)]
    await relay.relay_events(Reply(*pieces), exchange, asked.append, None, heard.append)
    assert exchange.seen[1:-1] == events
    assert exchange.seen[-1] == "clean"
    assert asked == [1]
    assert heard == ['{"id":9,"result":{}}']


async def test_half_an_event_is_never_relayed():
    exchange = client()
    await relay.relay_events(Reply(b"data: whole\n\ndata: ha"), exchange, print, None, lambda _: None)
    assert exchange.seen[1:-1] == [b"data: whole\n\n"]


async def test_events_are_changed_on_their_way():
    async def changed(message: Any) -> Any:
        return {**message, "changed": True}

    exchange = client()
    stream = b'id: 7\ndata: {"id":1,"result":{}}\n\ndata: {"method":"note"}\n\n'
    await relay.relay_events(Reply(stream), exchange, print, changed, lambda _: None)
    first, second = exchange.seen[1:-1]
    assert b"id: 7\n" in first
    assert b'"changed":true' in first
    assert second == b'data: {"method":"note"}\n\n'


async def test_an_event_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(relay, "_EVENT_LIMIT", 100)
    with pytest.raises(Refused) as refused:
        await relay.relay_events(Reply(b"data: " + b"a" * 200), client(), print, None, lambda _: None)
    assert refused.value.code == "outcome_unknown"
    assert refused.value.details["begun"] is True


async def test_a_message_that_is_too_large(monkeypatch):
    monkeypatch.setattr(relay, "_EVENT_LIMIT", 10)
    with pytest.raises(Refused) as refused:
        await relay.relay_message(Reply(b'{"a":"', b"aaaaaaaaaa"), client(), unchanged)
    assert refused.value.code == "too_large"


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"1", b"\xff", b"[" * 100_000])
async def test_messages_that_cannot_be_read(body):
    with pytest.raises(Refused) as refused:
        relay.read_message(body)
    assert refused.value.code == "outcome_unknown"
    assert refused.value.details["begun"] is True


async def kind(*chunks: bytes, **members: Any) -> Refused | None:
    try:
        await relay.check_kind(Reply(*chunks, **members), "tools")
    except Refused as refused:
        return refused
    return None


async def test_what_is_no_mcp():
    assert await kind(kind="application/json; charset=utf-8", status=500) is None
    assert await kind(kind="text/event-stream") is None
    assert await kind(kind="", status=202) is None
    for members in (
        {"kind": "text/html"},
        {"kind": "", "status": 500},
        {"kind": "text/plain", "status": 404},
    ):
        refused = await kind(b"hi", **members)
        assert refused is not None
        assert (refused.code, refused.details["begun"]) == ("outcome_unknown", True)


@pytest.mark.parametrize(
    ("told", "code"),
    [
        ({"code": "upstream_unreachable", "begun": False, "detail": "down"}, "upstream_unreachable"),
        ({"code": "no_grant", "begun": False}, "no_grant"),
        ({"code": "no_grant", "begun": True}, "outcome_unknown"),
        ({"code": "no_grant"}, "outcome_unknown"),
        ({"code": "granted", "begun": False}, "outcome_unknown"),
        ({}, "outcome_unknown"),
    ],
)
async def test_what_a_guard_may_say(told, code):
    refused = await kind(json.dumps(told).encode(), kind="application/problem+json", status=502)
    assert refused is not None
    assert refused.code == code
