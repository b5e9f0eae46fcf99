"""JSON text, read strictly (RFC 8259, held to I-JSON, RFC 7493, section 2).

What two readers could understand differently is refused: a name given twice, NaN and infinities, text that
is not UTF-8, lone surrogates, and nesting that exhausts a reader::

    decode(b'{"a": 1}')          → {"a": 1}
    decode(b'{"a": 1, "a": 2}')  → ValueError: the name 'a' is given twice
"""

import json
from typing import Any, NoReturn

from taskgrant.model.json import Json

#: Deeper than any document of ours, and far from the interpreter's own limit.
MAX_DEPTH = 64


def decode(text: bytes | str) -> Json:
    """The value that the text names. Raises ValueError with a sentence that quotes no more than one
    name of it."""
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"not UTF-8 at byte {error.start}") from None
    try:
        value: Json = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse,
            parse_float=_finite,
            parse_int=_integer,
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH}") from None
    _check(value)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise ValueError(f"the name {name[:80]!r} is given twice")
        members[name] = value
    return members


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError("a number is too large")
    return number


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:  # the interpreter's bound on digits
        raise ValueError("a number is too large") from None


def _check(value: Json) -> None:
    """Depth and lone surrogates, without recursion."""
    pending: list[tuple[Any, int]] = [(value, 1)]
    while pending:
        one, depth = pending.pop()
        if isinstance(one, str):
            if not one.isascii() and any("\ud800" <= char <= "\udfff" for char in one):
                raise ValueError("a string holds half of a surrogate pair")
        elif isinstance(one, dict | list):
            if depth > MAX_DEPTH:
                raise ValueError(f"nested deeper than {MAX_DEPTH}")
            if isinstance(one, dict):
                pending.extend((name, depth) for name in one)
                pending.extend((member, depth + 1) for member in one.values())
            else:
                pending.extend((item, depth + 1) for item in one)
