"""Do these arguments satisfy this schema? An exact evaluator of canonical documents (``model.schema``).

It answers what OPA's ``json.match_schema`` answers on the same document: strings are measured in code points, ``1``
and ``1.0`` are equal and both integers, ``true`` is no number, ``-0.0`` equals no listed value. It is stricter in one
thing, its bounds on the value, which hold whether or not the schema looks there:

* numbers are finite and within ±2^53 (floats beyond are not exact), strings hold no lone surrogates (encoders replace
  them, so that somebody else would see another string);
* at most ``MAX_DEPTH`` levels and ``MAX_NODES`` values;
* at most ``MAX_WORK`` units of work. It walks what OPA walks, in the same order (every sibling, alternatives until one
  fits), so that this bounds what a value can cost OPA. A miss that breaks a bound is ``excessive``: such arguments are
  not to be handed to OPA at all.

Reasons never name the allowed values: they may reach the agent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from taskgrant.model import patterns
from taskgrant.model.json import Json, JsonObject

MAX_NUMBER = 2**53
MAX_DEPTH = 32
MAX_NODES = 20_000
MAX_WORK = 20_000  # a unit is what OPA does in about a microsecond
MAX_MISSES = 16  # how many are reported

_CHARS_COMPARED = 256  # characters that OPA encodes per unit of work, for enum and const
_CHARS_COUNTED = 4096  # characters that it counts
_STEPS_MATCHED = 256  # characters times instructions that it matches


@dataclass(frozen=True, slots=True)
class Miss:
    """One fault: a JSON pointer (RFC 6901) into the value, and what is wrong there."""

    pointer: str
    reason: str
    excessive: bool = False


class _Excessive(Exception):
    def __init__(self, path: "_Path", reason: str) -> None:
        super().__init__(reason)
        self.miss = Miss(_pointer(path), reason, excessive=True)


# A path is a linked list, ("b", ("a", None)): pointers are spelt out for misses only.
_Path = tuple[str | int, Any] | None


def misses(schema: JsonObject, value: Json) -> list[Miss]:
    """What keeps ``value`` from satisfying a canonical ``schema``: empty when nothing does; at most ``MAX_MISSES``."""
    found = excess(value)
    if found is not None:
        return [found]
    walk = _Walk()
    try:
        walk.check(schema, value, None)
    except _Excessive as error:
        return [error.miss]
    return walk.found


def excess(value: Json) -> Miss | None:
    """The first bound that the value breaks by itself, whatever the schema."""
    try:
        _measure(value, None, 1, [MAX_NODES])
    except _Excessive as error:
        return error.miss
    return None


def same(one: Any, other: Any) -> bool:
    """Equality of JSON values (JSON Schema, core, section 4.2.2), except that ``-0.0`` equals nothing but itself."""
    kind = kind_of(one)
    if kind != kind_of(other):
        return False
    if kind == "number":
        return bool(one == other) and _negative_zero(one) == _negative_zero(other)
    if kind == "array":
        return len(one) == len(other) and all(map(same, one, other))
    if kind == "object":
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


def kind_of(value: object) -> str:
    """JSON's name for the type of a value; ``number`` for integers too. ``unknown`` for what is no JSON."""
    if isinstance(value, str):
        return "string"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    if value is None:
        return "null"
    if isinstance(value, (dict, Mapping)):  # dict first: a look-up in an abstract class is slow
        return "object"
    if isinstance(value, (list, tuple)):
        return "array"
    return "unknown"


def is_whole(value: object) -> bool:
    """True for what JSON Schema calls an integer, ``1.0`` included."""
    return isinstance(value, int) or (isinstance(value, float) and value.is_integer())


def _negative_zero(value: object) -> bool:
    return isinstance(value, float) and value == 0 and str(value).startswith("-")


def _pointer(path: _Path) -> str:
    parts: list[str] = []
    while path is not None:
        name, path = path
        parts.append("/" + str(name).replace("~", "~0").replace("/", "~1"))
    return "".join(reversed(parts))


def _measure(value: Any, path: _Path, depth: int, left: list[int]) -> None:
    left[0] -= 1
    if left[0] < 0:
        raise _Excessive(None, f"has more than {MAX_NODES} values in it")
    if depth > MAX_DEPTH:
        raise _Excessive(None, f"is nested more than {MAX_DEPTH} levels deep")
    kind = kind_of(value)
    if kind == "string":
        if not well_formed(value):
            raise _Excessive(path, "is no well-formed Unicode")
    elif kind == "number":
        if not -MAX_NUMBER <= value <= MAX_NUMBER:  # false for NaN too
            raise _Excessive(path, "is a number beyond ±2^53")
    elif kind == "object":
        for name, member in value.items():
            if not isinstance(name, str) or not well_formed(name):
                raise _Excessive(path, "has a name that is no well-formed Unicode")
            _measure(member, (name, path), depth + 1, left)
    elif kind == "array":
        for index, member in enumerate(value):
            _measure(member, (index, path), depth + 1, left)
    elif kind == "unknown":
        raise _Excessive(path, "is no JSON value")


def well_formed(text: str) -> bool:
    """True for a string without lone surrogates."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _weight(value: object) -> int:
    """The work of encoding a value once."""
    if isinstance(value, str):
        return 1 + len(value) // _CHARS_COMPARED
    if isinstance(value, (list, tuple)):
        return 1 + sum(map(_weight, value))
    if isinstance(value, Mapping):
        return 1 + sum(1 + len(name) // _CHARS_COMPARED + _weight(member) for name, member in value.items())
    return 1


class _Walk:
    """One evaluation. Alternatives are tried in a quiet walk of their own that spends from the same budget."""

    __slots__ = ("_left", "found")

    def __init__(self, left: list[int] | None = None) -> None:
        self.found: list[Miss] = []
        self._left = [MAX_WORK] if left is None else left

    def _spend(self, work: int) -> None:
        self._left[0] -= work
        if self._left[0] < 0:
            raise _Excessive(None, "takes too much work to compare with what is granted")

    def _miss(self, path: _Path, reason: str) -> None:
        if len(self.found) < MAX_MISSES:
            self.found.append(Miss(_pointer(path), reason))

    def check(self, schema: Mapping[str, Any], value: Any, path: _Path) -> None:
        self._spend(1)
        branches = schema.get("anyOf")
        if branches is not None:
            self._any(branches, value, path)
            return
        kind = schema["type"]
        if kind == "integer":
            if kind_of(value) != "number" or not is_whole(value):
                self._miss(path, "is no integer")
                return
        elif kind != kind_of(value):
            self._miss(path, f"is no {kind}")
            return
        if kind == "object":
            self._object(schema, value, path)
        elif kind == "array":
            self._array(schema, value, path)
        elif kind == "string":
            self._string(schema, value, path)
        elif kind in ("number", "integer"):
            self._number(schema, value, path)
        self._listed(schema, value, path)

    def _any(self, branches: Sequence[Mapping[str, Any]], value: Any, path: _Path) -> None:
        for branch in branches:
            walk = _Walk(self._left)
            walk.check(branch, value, path)
            if not walk.found:
                return
        self._miss(path, "fits none of the alternatives")

    def _object(self, schema: Mapping[str, Any], value: Mapping[str, Any], path: _Path) -> None:
        properties = schema["properties"]
        # OPA compares each member with each property by name.
        self._spend(len(value) + len(value) * len(properties) // 64)
        self._size(schema, "Properties", len(value), path)
        for name in schema.get("required", ()):
            if name not in value:
                self._miss((name, path), "is required")
        closed = not schema["additionalProperties"]
        for name, member in value.items():
            if name in properties:
                self.check(properties[name], member, (name, path))
            elif closed:
                self._miss((name, path), "is not granted")

    def _array(self, schema: Mapping[str, Any], value: Sequence[Any], path: _Path) -> None:
        self._size(schema, "Items", len(value), path)
        items = schema.get("items")
        if items is not None:
            for index, member in enumerate(value):
                self.check(items, member, (index, path))

    def _string(self, schema: Mapping[str, Any], value: str, path: _Path) -> None:
        self._spend(len(value) // _CHARS_COUNTED)
        self._size(schema, "Length", len(value), path)
        pattern = schema.get("pattern")
        if pattern is not None:
            self._spend(len(value) * patterns.cost(pattern) // _STEPS_MATCHED)
            if not patterns.matches(pattern, value):
                self._miss(path, "does not match the pattern")

    def _size(self, schema: Mapping[str, Any], what: str, size: int, path: _Path) -> None:
        low, high = schema.get("min" + what), schema.get("max" + what)
        if low is not None and size < low:
            self._miss(path, f"is below min{what}")
        if high is not None and size > high:
            self._miss(path, f"is above max{what}")

    def _number(self, schema: Mapping[str, Any], value: float, path: _Path) -> None:
        low, high = schema.get("minimum"), schema.get("maximum")
        above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
        if (low is not None and value < low) or (above is not None and value <= above):
            self._miss(path, "is too small")
        if (high is not None and value > high) or (below is not None and value >= below):
            self._miss(path, "is too large")

    def _listed(self, schema: Mapping[str, Any], value: Any, path: _Path) -> None:
        listed = schema.get("enum")
        if listed is not None:
            self._spend(_weight(value) + len(listed) // 16)
            if not any(same(value, one) for one in listed):
                self._miss(path, "is not an allowed value")
        if "const" in schema:
            self._spend(_weight(value))
            if not same(value, schema["const"]):
                self._miss(path, "is not the allowed value")
