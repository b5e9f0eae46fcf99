import json
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskgrant.protocols.lines import LineDecoder, encode

LIMIT = 8
text = st.binary(max_size=40).map(lambda raw: raw.replace(b"x", b"\n"))


def decoded(chunks: Sequence[bytes], limit: int = LIMIT) -> list[bytes | None]:
    decoder = LineDecoder(limit)
    return [line for chunk in chunks for line in decoder.feed(chunk)] + decoder.finish()


def test_lines_without_their_ends_and_without_empty_ones() -> None:
    assert decoded([b'{"a":1}\r\n\n  \n {}\n[]']) == [b'{"a":1}', b"{}", b"[]"]


def test_a_line_that_is_too_long_is_told_once_and_the_next_one_is_read() -> None:
    assert decoded([b"123456789" * 100, b"0" * 100, b"\n12345678\n", b"123456789"]) == [
        None,
        b"12345678",
        None,
    ]


def test_no_more_is_kept_than_one_line() -> None:
    decoder = LineDecoder(LIMIT)
    for _ in range(1000):
        assert decoder.feed(b"1234567") == []
    assert len(decoder._rest) <= LIMIT


@given(text, st.lists(st.integers(0, 40)))
def test_where_it_is_cut_makes_no_difference(stream: bytes, cuts: list[int]) -> None:
    places = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    pieces = [stream[start:end] for start, end in pairwise(places)]
    assert decoded(pieces) == decoded([stream])


values = st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)


@settings(max_examples=50)
@given(st.dictionaries(st.text(max_size=5), values | st.lists(values, max_size=3), max_size=3))
def test_a_message_is_one_line_for_every_reader_and_comes_back_as_it_was(message: dict) -> None:
    line = encode(message)
    assert line.isascii()
    assert line.decode().splitlines() == [line.decode().removesuffix("\n")]
    assert json.loads(line) == message
    assert decoded([line], 1 << 20) == [line.removesuffix(b"\n")]


def test_a_number_that_json_does_not_have_is_no_message() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode({"a": float("inf")})
