"""Frames and handshakes, against another implementation of RFC 6455."""

import base64
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from taskgrant.model.call import Head
from taskgrant.model.codes import Code
from taskgrant.protocols.websocket import (
    FRAGMENT_COST,
    Close,
    FrameFault,
    Frames,
    HandshakeFault,
    Message,
    Ping,
    accept_key,
    accepted,
    check_accepted,
    last_frame,
    opening,
    read_opening,
    refusal,
)

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # of RFC 6455, section 1.3
LIMIT = 4096

messages = st.lists(st.one_of(st.text(max_size=300), st.binary(max_size=300)), max_size=6)


def frames_of(message: str | bytes, cuts: list[int]) -> list[Frame]:
    """A message in fragments."""
    data = message.encode() if isinstance(message, str) else message
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    pieces = [data[start:end] for start, end in pairwise(edges)]
    first = Opcode.TEXT if isinstance(message, str) else Opcode.BINARY
    return [
        Frame(first if index == 0 else Opcode.CONT, piece, index == len(pieces) - 1)
        for index, piece in enumerate(pieces)
    ]


def read(frames: Frames, data: bytes, step: int) -> list[object]:
    found: list[object] = []
    for start in range(0, len(data), step):
        frames.feed(data[start : start + step])
        found.extend(event for event in frames.events() if event is not None)
    return found


@given(messages, st.lists(st.integers(0, 1000), max_size=4), st.integers(1, 700), st.booleans())
def test_messages_are_whole_however_they_come(sent, cuts, step, client):
    ping = Frame(Opcode.PING, b"p").serialize(mask=client)
    data = b"".join(
        frame.serialize(mask=client) + ping for message in sent for frame in frames_of(message, cuts)
    )
    events = read(Frames(client=not client, limit=LIMIT), data, step)
    assert [event.data for event in events if isinstance(event, Message)] == sent
    assert all(event == Ping(b"p") for event in events if not isinstance(event, Message))


@given(messages, st.booleans())
def test_what_is_written_is_read_again(sent, client):
    ours = Frames(client=client, limit=LIMIT)
    data = (
        b"".join(ours.message(Message(each)) for each in sent)
        + ours.pong(b"x")
        + ours.close(Close(4000, "é" * 99))
    )
    *events, last = read(Frames(client=not client, limit=LIMIT), data, 1000)
    assert events == [Message(each) for each in sent]
    assert last == Close(4000, "é" * 61)


@given(st.binary(max_size=600), st.integers(1, 100), st.booleans())
def test_any_bytes_are_events_or_a_fault(data, step, client):
    frames = Frames(client=client, limit=256)
    try:
        events = read(frames, data, step)
    except FrameFault:
        return
    assert all(event.size <= 256 for event in events if isinstance(event, Message))


@pytest.mark.parametrize("announced", [LIMIT + 1, 1 << 62])
def test_more_than_the_limit_is_refused_while_it_comes(announced):
    frames = Frames(client=True, limit=LIMIT)
    frames.feed(
        b"\x82\x7f" + announced.to_bytes(8, "big")
        if announced > 65535
        else b"\x82\x7e" + announced.to_bytes(2, "big")
    )
    assert list(frames.events()) == []
    frames.feed(b"x" * (LIMIT + 1))
    with pytest.raises(FrameFault) as fault:
        list(frames.events())
    assert fault.value.code is Code.TOO_LARGE


def test_fragments_that_hold_nothing_cost_something():
    frames = Frames(client=True, limit=LIMIT)
    frames.feed(b"\x02\x00" + b"\x00\x00" * (LIMIT // FRAGMENT_COST - 1))
    assert set(frames.events()) == {None}
    frames.feed(b"\x00\x00")
    with pytest.raises(FrameFault):
        list(frames.events())


@pytest.mark.parametrize("code", [1000, 1001, 1011, 3000, 4999])
def test_a_close_is_passed_on(code):
    frames = Frames(client=True, limit=0)
    frames.feed(last_frame(Close(code, "why")))
    assert list(frames.events()) == [Close(code, "why")]


def test_a_close_without_a_code_stays_one():
    frames = Frames(client=True, limit=0)
    frames.feed(b"\x88\x00\x81\x01x")
    assert list(frames.events()) == [Close(1005)]
    assert last_frame(Close(1005)) == b"\x88\x00"


@pytest.mark.parametrize(
    ("code", "told"),
    [(Code.REVOKED, 1008), (Code.OUTCOME_UNKNOWN, 1008), (Code.TOO_LARGE, 1009), (Code.MALFORMED, 1002)],
)
def test_a_refusal_is_a_close_that_begins_with_its_code(code, told):
    assert refusal(code, "because") == Close(told, f"{code}: because")
    assert len(last_frame(refusal(code, "b" * 500))) == 127


def head(*more: tuple[str, str], key: str = KEY, version: str = "13") -> Head:
    return Head("GET", "/", "", (("sec-websocket-key", key), ("sec-websocket-version", version), *more))


def test_an_opening_handshake():
    assert read_opening(head()) == ()
    offered = (("sec-websocket-protocol", "a, b"), ("sec-websocket-protocol", "c"))
    assert read_opening(head(*offered, ("sec-websocket-extensions", "permessage-deflate"))) == ("a", "b", "c")
    assert accept_key(KEY) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize(
    "wrong",
    [
        head(version="8"),
        head(key="short"),
        head(key=base64.b64encode(b"x" * 17).decode()),
        head(("sec-websocket-key", KEY)),
        head(("sec-websocket-version", "13")),
        Head("GET", "/"),
        head(("sec-websocket-protocol", "a,,b")),
        head(("sec-websocket-protocol", "a b")),
        head(("sec-websocket-protocol", "a, a")),
        head(("sec-websocket-protocol", ",".join(f"p{n}" for n in range(17)))),
    ],
)
def test_an_opening_handshake_that_is_none(wrong):
    with pytest.raises(HandshakeFault):
        read_opening(wrong)


@given(st.binary(min_size=16, max_size=16), st.lists(st.sampled_from("abcd"), unique=True))
def test_our_own_handshakes_are_taken(nonce, offered):
    key = base64.b64encode(nonce).decode()
    asked = Head("GET", "/", "", opening(key, tuple(offered)))
    assert read_opening(asked) == tuple(offered)
    chosen = offered[-1] if offered else None
    assert check_accepted(key, tuple(offered), accepted(asked, chosen)) == chosen


GOOD = {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-accept": accept_key(KEY)}


@pytest.mark.parametrize(
    "changed",
    [
        {"upgrade": "h2c"},
        {"connection": "close"},
        {"sec-websocket-accept": accept_key("other")},
        {"sec-websocket-extensions": "permessage-deflate"},
        {"sec-websocket-protocol": "c"},
        {"sec-websocket-protocol": "a, b"},
    ],
)
def test_an_answer_to_another_handshake(changed):
    assert check_accepted(KEY, ("a", "b"), tuple(GOOD.items())) is None
    with pytest.raises(HandshakeFault):
        check_accepted(KEY, ("a", "b"), tuple((GOOD | changed).items()))
