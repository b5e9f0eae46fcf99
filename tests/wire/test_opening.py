"""First bytes: decided as early as can be, the same however they come in pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrant.wire.opening import ENOUGH, Opening, classify

STARTS = st.sampled_from(
    [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00", b"PRI * HTTP/2.0\r\n", b"CONNECT x:1 ", b"SSH-2.0"]
)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (b"", None),
        (b"G", None),
        (b"GET", None),
        (b"GET ", Opening.HTTP),
        (b"PROPFIND /", Opening.HTTP),
        (b"CONNECT a.example:443", Opening.CONNECT),
        (b"PRI * HTTP/2.0", Opening.HTTP2),
        (b"\x16", None),
        (b"\x16\x03", Opening.TLS),
        (b"\x16\x02\x00", Opening.UNKNOWN),
        (b"\x80\x2e\x01", Opening.UNKNOWN),  # an SSL 2.0 hello
        (b"get / HTTP/1.1", Opening.UNKNOWN),
        (b"\r\nGET / HTTP/1.1", Opening.UNKNOWN),
        (b" GET / HTTP/1.1", Opening.UNKNOWN),
        (b"GET\t/ HTTP/1.1", Opening.UNKNOWN),
        (b"A" * 20, None),
        (b"A" * 21, Opening.UNKNOWN),
        (b"A" * 20 + b" /", Opening.HTTP),
        (b"SSH-2.0-x\r\n", Opening.UNKNOWN),
    ],
)
def test_what_the_first_bytes_say(seen, expected):
    assert classify(seen) is expected


@given(
    st.one_of(
        st.binary(min_size=ENOUGH),
        STARTS.flatmap(lambda start: st.binary(min_size=ENOUGH).map(start.__add__)),
    )
)
def test_enough_always_decides(data):
    assert classify(data[:ENOUGH]) is not None
    assert classify(data) is classify(data[:ENOUGH])


@given(STARTS.flatmap(lambda start: st.binary(max_size=40).map(start.__add__)))
def test_a_later_byte_changes_nothing(data):
    """A client that dribbles is taken for what it would be taken for at once."""
    decided = [verdict for size in range(len(data) + 1) if (verdict := classify(data[:size])) is not None]
    assert len(set(decided)) <= 1
