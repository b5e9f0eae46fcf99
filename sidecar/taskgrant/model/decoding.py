"""JSON that every reader understands the same way: a strict subset of RFC 8259 (held to I-JSON, RFC 7493, section 2).

Refused is what two readers could understand differently: a name given twice (which one wins), NaN, numbers that
overflow, lone surrogates, byte order marks, UTF-16, and nesting that exhausts a reader::

    decode(b'{"a": 1}')          → {"a": 1}
    decode(b'{"a": 1, "a": 2}')  → JsonFault: the member 'a' appears twice
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NoReturn

from taskgrant.model.json import Json

#: Deeper than any document of ours, and far from the interpreter's own limit.
MAX_DEPTH: Final = 64
#: Longer than any double or 64-bit integer is ever written; keeps integer parsing far from its quadratic part.
MAX_NUMBER_LENGTH: Final = 64

Pairs = list[tuple[str, Json]]


class JsonFault(ValueError):
    """The bytes are no JSON that we accept. ``str()`` says why in words, without quoting more than one member name."""


def unique(pairs: Pairs) -> dict[str, Json]:
    """An object's members. Raises JsonFault for a name that is there twice."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise JsonFault(f"the member {repeated(name for name, _ in pairs)!r} appears twice")
    return members


def repeated(names: Iterable[str]) -> str:
    """The name that is there most often, as far as it may be quoted."""
    (name, _), *_ = Counter(names).most_common(1)
    return name[:64]


class Decoder:
    """Reads documents whose objects ``members`` makes of their pairs."""

    def __init__(self, members: Callable[[Pairs], dict[str, Json]] = unique) -> None:
        self._decoder = json.JSONDecoder(
            object_pairs_hook=members, parse_int=_integer, parse_float=_float, parse_constant=_constant
        )

    def decode(self, body: bytes | str, max_depth: int = MAX_DEPTH) -> Json:
        """The value that ``body`` holds. Raises JsonFault for what two readers might understand differently."""
        text = body if isinstance(body, str) else _text(body)
        try:
            value: Json = self._decoder.decode(text)
        except json.JSONDecodeError as error:
            raise JsonFault(f"not JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None
        except RecursionError:
            raise JsonFault(f"nested deeper than {max_depth}") from None
        # Each nesting level costs a bracket, so a document with few brackets cannot be deep.
        if text.count("{") + text.count("[") > max_depth and _deeper_than(value, max_depth):
            raise JsonFault(f"nested deeper than {max_depth}")
        # Only an escape, or text that is no UTF-8 yet, can bring in a lone surrogate.
        if "\\u" in text or isinstance(body, str):
            try:
                encode(value)
            except UnicodeEncodeError:
                raise JsonFault("a string holds half of a surrogate pair") from None
        return value


def encode(value: Json) -> bytes:
    """``value`` as compact UTF-8 JSON. Raises ValueError for numbers that JSON cannot say."""
    return _ENCODER.encode(value).encode("utf-8")


def encode_ascii(value: Json) -> bytes:
    """The same with every other character escaped."""
    return _ASCII_ENCODER.encode(value).encode("ascii")


def _text(body: bytes) -> str:
    if body.startswith(b"\xef\xbb\xbf"):
        raise JsonFault("a byte order mark is not JSON")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise JsonFault(f"not UTF-8 at byte {error.start}") from None


def _integer(digits: str) -> int:
    if len(digits) > MAX_NUMBER_LENGTH:
        raise JsonFault(f"a number of more than {MAX_NUMBER_LENGTH} characters")
    return int(digits)


def _float(digits: str) -> float:
    if len(digits) > MAX_NUMBER_LENGTH:
        raise JsonFault(f"a number of more than {MAX_NUMBER_LENGTH} characters")
    number = float(digits)
    if math.isinf(number):
        raise JsonFault("a number too large for a double")
    return number


def _constant(name: str) -> NoReturn:
    raise JsonFault(f"{name} is not JSON")


def _deeper_than(value: Json, limit: int) -> bool:
    # Level by level rather than recursively: the depth is what an attacker chooses.
    level: list[Any] = [value]
    for _ in range(limit + 1):
        containers = [item for item in level if isinstance(item, dict | list)]
        if not containers:
            return False
        level = [
            child for item in containers for child in (item.values() if isinstance(item, dict) else item)
        ]
    return True


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_plain)
_ASCII_ENCODER = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), allow_nan=False, default=_plain)
decode = Decoder().decode
