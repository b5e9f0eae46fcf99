import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrant.model.decoding import MAX_DEPTH, decode

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(values)
def test_what_is_plain_is_read_as_json_reads_it(value: object) -> None:
    assert decode(json.dumps(value)) == value
    assert decode(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.binary())
def test_any_bytes_are_a_value_or_a_value_error(noise: bytes) -> None:
    with suppress(ValueError):
        decode(noise)


@pytest.mark.parametrize(
    "text, reason",
    [
        (b'{"a": 1, "a": 2}', "the member 'a' appears twice"),
        (b'[{"a": {"b": 1, "b": 1}}]', "'b' appears twice"),
        (b"NaN", "NaN is not JSON"),
        (b"-Infinity", "-Infinity is not JSON"),
        (b"1e999", "a number"),
        (b'"\xff"', "not UTF-8 at byte 1"),
        (b'"\\ud800"', "half of a surrogate pair"),
        (b'{"\\udfff": 1}', "half of a surrogate pair"),
        (b"[" * 65 + b"]" * 65, "nested deeper than 64"),
        (b"[" * 100_000, "nested deeper than 64"),
        (b"1" * 5000, "a number"),
        (b"{", "not JSON at line 1, column 2"),
        (b"", "not JSON"),
        (b"\xef\xbb\xbf1", "byte order mark"),
    ],
)
def test_what_two_readers_could_take_differently_is_refused(text: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decode(text)


def test_depth_is_counted_in_containers() -> None:
    assert decode("[" * MAX_DEPTH + "]" * MAX_DEPTH)
