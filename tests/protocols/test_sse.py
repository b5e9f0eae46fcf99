import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrant.protocols.sse import SseDecoder, SseEvent, SseFault, comment, encode

STREAM = st.lists(
    st.sampled_from(
        [b"data: a", b"data:b", b"id: 7", b"event: x", b": c", b"\n", b"\r", b"\r\n", "é".encode(), b":"]
    )
).map(b"".join)


def events(*chunks: bytes, limit: int = 10_000) -> list[SseEvent]:
    decoder = SseDecoder(limit)
    return [event for chunk in chunks for event in decoder.feed(chunk)] + decoder.finish()


TABLE = {
    "line feeds": (b"event: m\ndata: {}\nid: 7\n\n", [("m", "{}", "7")]),
    "carriage returns": (b"data: a\r\rdata: b\r\r", [("message", "a", None), ("message", "b", None)]),
    "both": (b"data: a\r\n\r\ndata: b\r\n\r\n", [("message", "a", None), ("message", "b", None)]),
    "mixed": (b"data: a\n\r\ndata: b\r\n\n", [("message", "a", None), ("message", "b", None)]),
    "several lines of data": (b"data: a\ndata\ndata:  b\n\n", [("message", "a\n\n b", None)]),
    "comment": (b": hello\n\n", [("message", "", None)]),
    "byte order mark": (b"\xef\xbb\xbfdata: a\n\n", [("message", "a", None)]),
    "later byte order mark": (
        b":\n\n\xef\xbb\xbfdata: a\n\n",
        [("message", "", None), ("message", "", None)],
    ),
    "other line separators are data": (
        "data: a\u2028b\x0bc\n\n".encode(),
        [("message", "a\u2028b\x0bc", None)],
    ),
    "id with nul": (b"id: a\0\ndata: x\n\n", [("message", "x", None)]),
    "unknown field": (b"retry: 5\nfoo: bar\ndata: x\n\n", [("message", "x", None)]),
    "empty event name": (b"event:\ndata: x\n\n", [("message", "x", None)]),
    "not whole": (b"data: a\n\ndata: lost\n", [("message", "a", None)]),
    "broken utf-8": (b"data: \xff\n\n", [("message", "\ufffd", None)]),
}


@pytest.mark.parametrize(("stream", "expected"), TABLE.values(), ids=TABLE.keys())
def test_table(stream, expected):
    assert [(event.event, event.data, event.id) for event in events(stream)] == expected


@given(STREAM, st.data())
def test_chunks_make_no_difference(stream, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    whole = events(stream)
    assert events(*chunks) == whole
    assert events(*(bytes([byte]) for byte in stream)) == whole
    assert stream.startswith(b"".join(event.raw for event in whole))


def test_an_event_is_there_as_soon_as_it_is_whole():
    decoder = SseDecoder(100)
    assert decoder.feed(b"data: a\r\n\r") == []
    assert [event.raw for event in decoder.feed(b"\n")] == [b"data: a\r\n\r\n"]
    assert decoder.pending == 0


@pytest.mark.parametrize(
    "chunks", [[b"data: " + b"x" * 200], [b"data: " + b"x" * 200 + b"\n\n"], [b"x"] * 101]
)
def test_an_event_is_bounded(chunks):
    with pytest.raises(SseFault):
        events(*chunks, limit=100)


def test_many_small_events_are_not_one_large_one():
    assert len(events(b"data: x\n\n" * 100, limit=20)) == 100


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0")), st.integers(0, 9))
def test_what_is_encoded_is_decoded(text, number):
    (event,) = events(encode(text.encode(), "m", str(number)))
    assert (event.data, event.event, event.id) == (text, "m", str(number))


def test_data_with_line_breaks_and_comments():
    (event,) = events(encode(b"a\nb\r\nc"))
    assert (event.data, event.id) == ("a\nb\nc", None)
    (event,) = events(comment("stopped:\nwhy"))
    assert event.raw == b": stopped: why\n\n"
    assert event.data == ""
