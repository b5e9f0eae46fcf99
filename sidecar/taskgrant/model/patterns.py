r"""Patterns of the schema fragment: RE2, full match, the same answer from our engine and from OPA's.

Grammar (what RE2's own syntax has, less what the two engines read differently or what breaks the anchoring)::

    groups      (…)  (?:…)  (?i:…)  (?s:…)  (?is:…)  and bare (?i) (?s) (?is); no (?m), (?U), no names
    escapes     no \Q…\E (it would swallow the anchors), no \C (bytes), no \Z
    properties  \pL \p{Lu} \P{N} …: general categories, and the scripts of ``_SCRIPTS``; no \pC (one engine counts
                unassigned characters in)

The canonical form is ``^(?:…)$``. A group ends the flags that are set in it, so the outer anchors are always those of
the whole text: ``"a\nb"`` never matches ``a``. A pattern that already has this form keeps it.
"""

import re
from functools import lru_cache
from typing import Any

import re2

MAX_SOURCE = 512  # code points of an author's pattern
MAX_PROGRAM = 10_000  # instructions of the compiled pattern: what one character may cost

_PREFIX, _SUFFIX = "^(?:", ")$"
_SCRIPTS = frozenset(
    {
        "Latin",
        "Greek",
        "Cyrillic",
        "Armenian",
        "Hebrew",
        "Arabic",
        "Devanagari",
        "Bengali",
        "Thai",
        "Georgian",
    }
    | {"Hangul", "Hiragana", "Katakana", "Han"}
)
_CATEGORIES = re.compile("C[cfo]|L[lmotu]?|M[cen]?|N[dlo]?|P[cdefios]?|S[ckmo]?|Z[lps]?")
_PROPERTY = re.compile(r"[pP](?:\{\^?([A-Za-z]+)\}|([A-Z]))")
_FLAGS = re.compile(r"\?(?:is|si|i|s)?:|\?(?:is|si|i|s)\)")


class PatternFault(ValueError):
    """A pattern that is refused. ``str()`` says why."""


@lru_cache(maxsize=4096)
def compiled(pattern: str) -> Any:
    """The engine for a canonical pattern. Raises ``PatternFault``."""
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    try:
        return re2.compile(pattern, options)
    except (re2.error, UnicodeEncodeError) as error:
        reason = error.args[0] if error.args else "invalid"
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise PatternFault(f"is no RE2 pattern: {text}") from None


def matches(pattern: str, text: str) -> bool:
    """Full match of a canonical pattern. Raises UnicodeEncodeError for a text with a lone surrogate."""
    # Of bytes: for a str the library works out where each group lies in characters, which takes three times as long.
    return compiled(pattern).search(text.encode()) is not None


def cost(pattern: str) -> int:
    """Instructions of a canonical pattern: an upper bound for the work on one character."""
    return int(compiled(pattern).programsize)


def anchored(pattern: str) -> str:
    """The canonical form of an author's pattern. Raises ``PatternFault`` for one that is outside the grammar above."""
    if pattern.startswith(_PREFIX) and pattern.endswith(_SUFFIX):
        inner = pattern[len(_PREFIX) : -len(_SUFFIX)]
        if len(inner) <= MAX_SOURCE and _stands_alone(inner):
            return _checked(inner, pattern)
    return _checked(pattern, _PREFIX + pattern + _SUFFIX)


def _stands_alone(pattern: str) -> bool:
    try:
        compiled(pattern)
    except PatternFault:
        return False
    return True


def _checked(inner: str, whole: str) -> str:
    if len(inner) > MAX_SOURCE:
        raise PatternFault(f"is longer than {MAX_SOURCE} characters")
    if "\0" in inner:
        raise PatternFault("has a NUL in it")
    _scan(inner)
    # Alone first: "a)|(?:b" balances only once it stands between the anchors.
    compiled(inner)
    if cost(whole) > MAX_PROGRAM:
        raise PatternFault(f"compiles to more than {MAX_PROGRAM} instructions")
    return whole


def _scan(pattern: str) -> None:
    """Refuses escapes and groups outside the grammar. In a class ``(`` is literal, an escape is not."""
    in_class = False
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "\\":
            _escape(pattern, at + 1)
            at += 2
            continue
        if in_class:
            if pattern.startswith("[:", at):
                end = pattern.find(":]", at)
                at = end + 2 if end > 0 else at + 1
                continue
            in_class = char != "]"
        elif char == "[":
            in_class = True
            # "]" straight after "[" or "[^" is literal.
            at += 2 if pattern.startswith("^", at + 1) else 1
            at += 1 if pattern.startswith("]", at) else 0
            continue
        elif pattern.startswith("(?", at) and not _FLAGS.match(pattern, at + 1):
            raise PatternFault(f"has a group at {at} that is not allowed: only (?:…), (?i…) and (?s…) are")
        at += 1


def _escape(pattern: str, at: int) -> None:
    letter = pattern[at : at + 1]
    if letter in ("Q", "E", "C", "Z"):
        raise PatternFault(f"has \\{letter}, which is not allowed")
    if letter in ("p", "P"):
        found = _PROPERTY.match(pattern, at)
        name = (found[1] or found[2]) if found else ""
        if name not in _SCRIPTS and not _CATEGORIES.fullmatch(name):
            raise PatternFault(
                f"has a \\{letter} that is neither a general category nor one of {', '.join(sorted(_SCRIPTS))}"
            )
