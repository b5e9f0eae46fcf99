from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrant.client import sse
from taskgrant.client.events import feed
from taskgrant.client.sse import Parser, ServerSentEvent
from taskgrant.errors import Refused

STREAM = (
    b": ping\n\nid: a:1\nevent: task\ndata: {\ndata: }\n\r\n"
    b"event: x\n\ndata:caf\xc3\xa9\r\n\r\nretry: 5\ndata: cut"
)
EVENTS = [ServerSentEvent("task", "{\n}"), ServerSentEvent("message", "caf\u00e9")]


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_pieces_do_not_matter(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    parser = Parser()
    pieces = [STREAM[start:end] for start, end in pairwise(places)]
    assert [event for piece in pieces for event in parser.feed(piece)] == EVENTS


@given(st.binary(max_size=200))
def test_any_bytes_are_events_or_nothing(noise: bytes) -> None:
    list(Parser().feed(noise))


@pytest.mark.parametrize("raw", [b"x" * 200, b"data: " + b"x" * 150 + b"\n", b"data: 12345678\n" * 20])
def test_an_event_without_end_is_refused(raw: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT", 100)
    with pytest.raises(Refused, match="larger than 100 bytes"):
        list(feed(Parser(), raw))


@pytest.mark.parametrize("data", [b"[]", b"{", b'{"kind": "task"}', b'{"kind": "task", "cursor": "x"}'])
def test_an_event_that_is_not_understood_is_not_overlooked(data: bytes) -> None:
    with pytest.raises(Refused) as refused:
        list(feed(Parser(), b"data: " + data + b"\n\n"))
    assert refused.value.code == "authority_unavailable"


def test_a_kind_of_a_newer_authority_is_passed_over() -> None:
    assert list(feed(Parser(), b'data: {"kind": "of tomorrow"}\n\n')) == []
