"""Arguments in records: a digest always, the arguments themselves only where asked for, and then masked."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

from taskgrant.model.json import Json, JsonObject

MASK = "[masked]"


def digest(arguments: JsonObject) -> str:
    """SHA-256, in hex, of the canonical JSON of the arguments: the same whenever JSON holds the values to be equal.

    Canonical: UTF-8, no white space, names sorted by code point, ``1.0`` written ``1`` and ``-0.0`` written ``0``.
    Never raises for values that a JSON parser can produce: lone surrogates are encoded as they are (WTF-8), a number
    that is not finite by its name.
    """
    text = json.dumps(_plain(arguments), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def mask(value: Json, pointers: Iterable[str]) -> Json:
    """A copy with each value that a JSON pointer (RFC 6901) names replaced; a pointer that names nothing is ignored.

    The empty pointer masks everything. Raises ValueError for what is no pointer.
    """
    for pointer in pointers:
        if pointer and not pointer.startswith("/"):
            raise ValueError(f"not a JSON pointer: {pointer!r}")
        value = _masked(value, [_unescape(part) for part in pointer.split("/")[1:]])
    return value


def _masked(value: Json, path: Sequence[str]) -> Json:
    if not path:
        return MASK
    name, rest = path[0], path[1:]
    if isinstance(value, Mapping) and name in value:
        return {key: _masked(member, rest) if key == name else member for key, member in value.items()}
    if isinstance(value, (list, tuple)) and name.isascii() and name.isdigit() and str(int(name[:9])) == name:
        index = int(name)
        return [_masked(member, rest) if at == index else member for at, member in enumerate(value)]
    return value


def _unescape(part: str) -> str:
    return part.replace("~1", "/").replace("~0", "~")


def _plain(value: Json) -> Json:
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, (dict, Mapping)):
        return {key: _plain(member) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(member) for member in value]
    return value
