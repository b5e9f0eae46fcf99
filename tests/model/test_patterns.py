"""Patterns: full match whatever is inside them, and nothing that two engines read differently."""

from typing import Any

import pytest
from hypothesis import given

from taskgrant.model.patterns import PatternFault, anchored, compiled, cost, matches
from tests.model.strategies import PATTERNS, TEXTS


@pytest.mark.parametrize(
    "source, text, full",
    [
        ("a", "a", True),
        ("a", "a\nb", False),
        ("a", "b\na", False),
        ("a", "a\n", False),
        ("a$", "a\n", False),
        ("a|b", "ab", False),
        ("a|b", "b", True),
        ("^a$|^b$", "b", True),
        ("(?i)a", "A", True),
        ("(?s).*", "a\nb", True),
        (".*", "a\nb", False),
        ("(?i:a)a", "AA", False),
        ("[(?m)]", "m", True),
        ("[]a]", "]", True),
        ("[^]a]", "b", True),
        ("[[:alpha:](?]+", "a(?", True),
        (r"\p{Lu}\pL\P{N}", "Éé ", True),
        (r"\p{Greek}+", "αβγ", True),
        (r"\(?", "(", True),
        ("", "", True),
        ("", "a", False),
        ("a\\\\", "a\\", True),
        ("^(?:a)$", "a", True),
        ("^(?:a)|(?:b)$", "b", True),
        ("^(?:a)|(?:b)$", "ab", False),
    ],
)
def test_full_match(source: str, text: str, full: bool) -> None:
    assert matches(anchored(source), text) is full


@pytest.mark.parametrize(
    "source",
    [
        "(?m)a", "(?m:a)", "(?im)a", "(?-i)a", "(?U)a", "(?P<n>a)", "(?<n>a)", "(?=a)", "(?!a)", "(?<=a)", "(?#a)",
        "(?x)a",
        r"\Qa", r"a\E", r"\C", r"a\Z", r"[\Q]", r"\1", r"\p{Klingon}", r"\p{Lx}", r"\px",
        r"\pC", r"\P{C}", "\\p", "a)|(?:b", "(", "a\\", "[a",
        "a{1001}", "(?:a{1000}){1000}", "a**", "\0", "\ud800", "a" * 513, "x{2,1}", r"(?:\pL{40}){20}",
    ],
)  # fmt: skip
def test_refused(source: str) -> None:
    with pytest.raises(PatternFault):
        anchored(source)


def test_the_longest_pattern_has_a_canonical_form_that_stands() -> None:
    form = anchored("a" * 512)
    assert anchored(form) == form


@given(PATTERNS, TEXTS)
def test_the_canonical_form_is_a_full_match_and_a_fixed_point(source: str, text: str) -> None:
    try:
        form = anchored(source)
    except PatternFault:
        return
    inner: Any = compiled(source) if not source.startswith("^(?:") else compiled(form)
    assert anchored(form) == form
    assert matches(form, text) is (inner.fullmatch(text) is not None)
    assert cost(form) > 0
