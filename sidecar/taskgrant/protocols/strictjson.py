"""JSON that every reader understands the same way: a strict subset of RFC 8259 in, one compact form out.

Servers disagree about the rest, and each disagreement lets a tool read something that policy did not see: duplicate
names (which one wins), names that differ only in case (Go's ``encoding/json`` and others match loosely), NaN, numbers
that overflow, lone surrogates, byte order marks, UTF-16. All of that is refused, in every object of the document, the
arguments of a tool included: the few tools that want both ``id`` and ``ID`` in one object cannot be called.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from taskgrant.model.json import Json

MAX_DEPTH = 64
#: Longer than any double or 64-bit integer is ever written; keeps integer parsing far from its quadratic part.
MAX_NUMBER_LENGTH = 64


class JsonFault(ValueError):
    """The bytes are no JSON that we accept. ``str()`` says why in words, without quoting more than one member name."""


def decode(body: bytes, max_depth: int = MAX_DEPTH) -> Json:
    """The value that ``body`` holds. Raises JsonFault for anything that two readers might understand differently."""
    if body.startswith(b"\xef\xbb\xbf"):
        raise JsonFault("a byte order mark is not JSON")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise JsonFault(f"not UTF-8 at byte {error.start}") from None
    try:
        value: Json = _DECODER.decode(text)
    except JsonFault:
        raise
    except json.JSONDecodeError as error:
        raise JsonFault(f"not JSON at character {error.pos}: {error.msg}") from None
    except RecursionError:
        raise JsonFault(f"nested deeper than {max_depth}") from None
    # Each nesting level costs a bracket, so a document with few brackets cannot be deep.
    if body.count(b"{") + body.count(b"[") > max_depth and _deeper_than(value, max_depth):
        raise JsonFault(f"nested deeper than {max_depth}")
    if b"\\u" in body:
        # Only an escape can bring in a lone surrogate: UTF-8 itself has none.
        try:
            _ENCODER.encode(value).encode("utf-8")
        except UnicodeEncodeError:
            raise JsonFault("a string holds half of a surrogate pair") from None
    return value


def encode(value: Json) -> bytes:
    """``value`` as compact UTF-8 JSON. Raises ValueError for numbers that JSON cannot say."""
    return _ENCODER.encode(value).encode("utf-8")


def fold(name: str) -> str:
    """What readers that ignore case compare: at least all that Unicode simple and full case folding identify.

    ``ſ`` and the Kelvin sign fold to ``s`` and ``k`` as in Go's ``strings.EqualFold``; the dotted and the dotless i
    fold to ``i``, as in Java's ``equalsIgnoreCase``.
    """
    if name.isascii():
        return name.lower()
    return name.upper().casefold().replace("i\u0307", "i")


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise JsonFault(f"the member {_repeated(name for name, _ in pairs)!r} appears twice")
    if len(members) < 2:
        return members
    # On the path of every call: most objects have ASCII names only, where folding is lower case and costs no call.
    folder = str.lower if "".join(members).isascii() else fold
    if len(set(map(folder, members))) != len(members):
        again = _repeated(fold(name) for name in members)
        raise JsonFault(f"two members differ from {again!r} in case only")
    return members


def _repeated(names: Iterable[str]) -> str:
    (name, _), *_ = Counter(names).most_common(1)
    return name[:64]


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


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
)
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_plain)
