"""Digests are equal when JSON values are; masks replace what is pointed at and touch nothing else."""

import copy
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrant.audit.masking import MASK, digest, mask

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@pytest.mark.parametrize(
    "one, other, equal",
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 0}, {"a": -0.0}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": "1"}, {"a": 1}, False),
        ({"a": [1, 2]}, {"a": [2, 1]}, False),
        ({"a": None}, {}, False),
        ({"a": "é"}, {"a": "e\u0301"}, False),
        ({"a": "\ud800"}, {"a": "\ufffd"}, False),
    ],
)
def test_digest(one: Any, other: Any, equal: bool) -> None:
    assert (digest(one) == digest(other)) is equal


def test_digest_is_stable() -> None:
    # printf '{"a":[1,"\xc3\xa9",null]}' | sha256sum
    assert digest({"a": [1.0, "é", None]}) == (
        "e31712bc2533e049331631231b09c7aff1bb1dcde09d73e2e94096816f4844c6"
    )


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_digest_never_raises(arguments: Any) -> None:
    assert len(digest(arguments)) == 64
    assert len(digest({"a": [arguments, math.inf, "\udfff"]})) == 64


@pytest.mark.parametrize(
    "pointers, masked",
    [
        ([], {"a": {"b": 1, "c/~": 2}, "l": [{"x": 1}, 2]}),
        (["/a/b"], {"a": {"b": MASK, "c/~": 2}, "l": [{"x": 1}, 2]}),
        (["/a/c~1~0"], {"a": {"b": 1, "c/~": MASK}, "l": [{"x": 1}, 2]}),
        (["/a", "/a/b"], {"a": MASK, "l": [{"x": 1}, 2]}),
        (["/l/0/x", "/l/1"], {"a": {"b": 1, "c/~": 2}, "l": [{"x": MASK}, MASK]}),
        (["/l/00", "/l/-", "/l/9", "/l/²", "/z/z", "/", "/l/" + "9" * 9999],
         {"a": {"b": 1, "c/~": 2}, "l": [{"x": 1}, 2]}),
        ([""], MASK),
    ],
)  # fmt: skip
def test_mask(pointers: list[str], masked: Any) -> None:
    value: Any = {"a": {"b": 1, "c/~": 2}, "l": [{"x": 1}, 2]}
    before = copy.deepcopy(value)
    assert mask(value, pointers) == masked
    assert value == before


def test_a_mask_that_is_no_pointer_is_refused() -> None:
    with pytest.raises(ValueError, match="not a JSON pointer"):
        mask({}, ["a"])
