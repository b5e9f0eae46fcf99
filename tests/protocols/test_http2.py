import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrant.model.codes import Code
from taskgrant.protocols.framing import FramingFault
from taskgrant.protocols.http2 import MAX_FRAME, PREFACE, Frame, FrameWatch, Request, read_request

METHOD, SCHEME, AUTHORITY, PATH = (
    (b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"mail.example"), (b":path", b"/a?b"),
)  # fmt: skip
GOOD = [METHOD, SCHEME, AUTHORITY, PATH]


def test_a_request_is_read_as_http1_would_have_it():
    assert read_request([*GOOD, (b"x-a", b"b")], "https") == Request(
        "GET", "mail.example", "/a?b", ((b"host", b"mail.example"), (b"x-a", b"b"))
    )


def test_host_stands_in_for_the_authority_and_beside_an_equal_one():
    host = (b"host", b"mail.example")
    for fields in ([METHOD, SCHEME, PATH, host], [*GOOD, host]):
        read = read_request(fields, "https")
        assert (read.authority, read.headers) == ("mail.example", (host,))


BAD = {
    "two paths": ([*GOOD, PATH], "malformed"),
    "two methods": ([METHOD, *GOOD], "malformed"),
    "after the headers": ([METHOD, SCHEME, AUTHORITY, (b"x-a", b"b"), PATH], "malformed"),
    "two hosts that differ": ([*GOOD, (b"host", b"mail.example"), (b"host", b"evil.example")], "malformed"),
    "another host": ([*GOOD, (b"host", b"evil.example")], "malformed"),
    "of an answer": ([*GOOD, (b":status", b"200")], "malformed"),
    "made up": ([*GOOD, (b":x", b"y")], "malformed"),
    "extended CONNECT": ([*GOOD, (b":protocol", b"websocket")], "unsupported"),
    "another scheme": ([METHOD, (b":scheme", b"http"), AUTHORITY, PATH], "malformed"),
    "no scheme": ([METHOD, AUTHORITY, PATH], "malformed"),
    "no path": ([METHOD, SCHEME, AUTHORITY], "unsupported"),
    "empty path": ([METHOD, SCHEME, AUTHORITY, (b":path", b"")], "unsupported"),
    "asterisk": ([METHOD, SCHEME, AUTHORITY, (b":path", b"*")], "unsupported"),
    "absolute path": ([METHOD, SCHEME, AUTHORITY, (b":path", b"https://mail.example/")], "unsupported"),
}


@pytest.mark.parametrize(("fields", "code"), BAD.values(), ids=BAD.keys())
def test_what_is_no_request_is_refused(fields, code):
    with pytest.raises(FramingFault) as refused:
        read_request(fields, "https")
    assert refused.value.code == Code(code)


def frame(length: int, kind: int = 0, flags: int = 0) -> bytes:
    return length.to_bytes(3, "big") + bytes([kind, flags, 0, 0, 0, 1])


@given(
    st.lists(st.tuples(st.integers(0, MAX_FRAME), st.integers(0, 255), st.integers(0, 255)), max_size=5),
    st.integers(1, 5000),
)
def test_frames_are_seen_wherever_the_bytes_are_cut(frames, step):
    data = PREFACE + b"".join(frame(*each) + bytes(each[0]) for each in frames)
    watch = FrameWatch()
    seen = [each for at in range(0, len(data), step) for each in watch.feed(data[at : at + step])]
    assert seen == [Frame(kind, flags, length) for length, kind, flags in frames]


def test_a_frame_that_is_too_long_is_refused_by_its_head():
    with pytest.raises(FramingFault):
        list(FrameWatch().feed(PREFACE + frame(MAX_FRAME + 1)))
