"""Argument schemas: a closed fragment of JSON Schema, made canonical so that every evaluator reads it alike.

What an author may write (everything else is refused with the JSON pointer of the fault)::

    schema  = {"anyOf": [schema, …]}                                    ["type" beside it, if all alternatives have it]
            | {"type": "object",  "properties", "required", "additionalProperties": true|false,
                                  "minProperties", "maxProperties"}
            | {"type": "array",   "items": schema, "minItems", "maxItems", "enum", "const"}
            | {"type": "string",  "minLength", "maxLength", "pattern", "enum", "const"}
            | {"type": "number" | "integer", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
                                  "enum", "const"}
            | {"type": "boolean", "enum", "const"} | {"type": "null", "enum", "const"}

A document is an object schema, or ``anyOf`` of them; there, and beside ``enum``/``const`` whose values are all of one
type, ``type`` may be left out. An array needs ``items`` unless its values are listed. Listed values hold no objects:
say those with ``properties``, each with a ``const``. ``pattern`` is RE2 and matches the whole string
(``model.patterns``). Examples::

    {"properties": {"to": {"enum": ["a@example.org"]}}, "required": ["to"]}
    {"additionalProperties": true}                                      any arguments, said in so many words

The canonical form has every ``type``; ``properties`` and ``additionalProperties`` on every object, false unless the
author wrote true; patterns as ``^(?:…)$``; listed values once each, ``-0.0`` as ``0``; names in order. It is a fixed
point of ``canonical``. Schemas that nothing can satisfy are refused where that is seen exactly (bounds that exclude
each other, a required name that is not allowed, listed values that fail the bounds beside them); no more is claimed.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from taskgrant.model import patterns
from taskgrant.model.json import Json, JsonObject
from taskgrant.model.matching import MAX_NUMBER, excess, is_whole, kind_of, misses, same, well_formed

MAX_DEPTH = 8  # nested schemas; the document is the first
MAX_NODES = 512  # schemas and listed values
MAX_NAME = 256  # code points of a property's name
MAX_STRING = 4096  # code points of a listed string
MAX_BYTES = 65_536  # of the canonical document, in UTF-8

_LISTED = frozenset({"enum", "const"})
_NUMERIC = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}) | _LISTED
_KEYWORDS: Mapping[str, frozenset[str]] = {
    "object": frozenset({"properties", "required", "additionalProperties", "minProperties", "maxProperties"}),
    "array": frozenset({"items", "minItems", "maxItems"}) | _LISTED,
    "string": frozenset({"minLength", "maxLength", "pattern"}) | _LISTED,
    "number": _NUMERIC,
    "integer": _NUMERIC,
    "boolean": _LISTED,
    "null": _LISTED,
}
_ALL_KEYWORDS = frozenset({"type", "anyOf"}).union(*_KEYWORDS.values())


class SchemaFault(ValueError):
    """A schema that is refused: ``pointer`` (RFC 6901) into the document, and ``reason``, a sentence for its author."""

    def __init__(self, pointer: str, reason: str) -> None:
        super().__init__(f"{pointer or 'the schema'}: {reason}")
        self.pointer = pointer
        self.reason = reason


def canonical(document: Json) -> JsonObject:
    """The canonical form of an author's schema; None admits no argument at all. Raises ``SchemaFault``."""
    if document is None:
        return {"type": "object", "properties": {}, "additionalProperties": False}
    form = _Reader().schema(document, "", 1, "object")
    if len(json.dumps(form, ensure_ascii=False).encode()) > MAX_BYTES:
        raise SchemaFault("", f"is larger than {MAX_BYTES} bytes")
    return form


def _at(pointer: str, name: str | int) -> str:
    return f"{pointer}/{str(name).replace('~', '~0').replace('/', '~1')}"


class _Reader:
    def __init__(self) -> None:
        self._nodes = 0

    def _node(self, pointer: str, depth: int) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise SchemaFault(pointer, f"is one more than {MAX_NODES} schemas and listed values")
        if depth > MAX_DEPTH:
            raise SchemaFault(pointer, f"is nested more than {MAX_DEPTH} levels deep")

    def schema(self, source: object, at: str, depth: int, implied: str | None = None) -> dict[str, Any]:
        """``implied`` is the type of a schema that names none; it is also the only type allowed there."""
        self._node(at, depth)
        if not isinstance(source, Mapping):
            raise SchemaFault(at, "a schema is an object; true and false are none")
        for name in source:
            if name not in _ALL_KEYWORDS:
                raise SchemaFault(_at(at, _shown(name)), "is no keyword of the fragment that grants may use")
        if "anyOf" in source:
            return self._any(source, at, depth, implied)
        listed = self._listed(source, at, depth)
        kind = self._type(source, at, listed, implied)
        for name in source:
            if name != "type" and name not in _KEYWORDS[kind]:
                raise SchemaFault(_at(at, name), f"does not go with type {kind}")
        form: dict[str, Any] = {"type": kind}
        if kind == "object":
            self._object(source, at, depth, form)
        elif kind == "array":
            self._array(source, at, depth, form)
        elif kind == "string":
            self._string(source, at, form)
        elif kind in ("number", "integer"):
            self._number(source, at, form)
        _check_listed(form, listed, at)
        return form

    def _any(self, source: Mapping[str, Any], at: str, depth: int, implied: str | None) -> dict[str, Any]:
        for name in source:
            if name not in ("anyOf", "type"):
                raise SchemaFault(_at(at, name), "does not go with anyOf: write it into each alternative")
        kind = _type_name(source, at) if "type" in source else implied
        if implied is not None and kind != implied:
            raise SchemaFault(_at(at, "type"), f"must be {implied} here")
        branches = _sequence(source["anyOf"], _at(at, "anyOf"))
        if not branches:
            raise SchemaFault(_at(at, "anyOf"), "is empty: nothing can satisfy it")
        where = _at(at, "anyOf")
        return {
            "anyOf": [
                self.schema(branch, _at(where, index), depth + 1, kind)
                for index, branch in enumerate(branches)
            ]
        }

    def _type(
        self, source: Mapping[str, Any], at: str, listed: Mapping[str, list[Any]], implied: str | None
    ) -> str:
        if "type" in source:
            kind = _type_name(source, at)
        elif implied is not None:
            kind = implied
        elif listed:
            kind = _common_type([value for values in listed.values() for value in values], at)
        else:
            raise SchemaFault(at, "needs a type")
        if implied is not None and kind != implied:
            raise SchemaFault(_at(at, "type"), f"must be {implied} here")
        return kind

    def _listed(self, source: Mapping[str, Any], at: str, depth: int) -> dict[str, list[Any]]:
        listed: dict[str, list[Any]] = {}
        if "enum" in source:
            values = _sequence(source["enum"], _at(at, "enum"))
            if not values:
                raise SchemaFault(_at(at, "enum"), "is empty: nothing can satisfy it")
            listed["enum"] = []
            for index, value in enumerate(values):
                value = self._value(value, _at(_at(at, "enum"), index), depth)
                if not any(same(value, one) for one in listed["enum"]):
                    listed["enum"].append(value)
        if "const" in source:
            listed["const"] = [self._value(source["const"], _at(at, "const"), depth)]
        return listed

    def _value(self, value: Any, at: str, depth: int) -> Any:
        self._node(at, depth)
        kind = kind_of(value)
        if kind == "array":
            return [self._value(member, _at(at, index), depth + 1) for index, member in enumerate(value)]
        if kind == "object":
            raise SchemaFault(at, "a listed value holds no objects: use properties, each with a const")
        if kind == "string":
            return _text(value, at, MAX_STRING)
        if kind == "number":
            return _finite(value, at)
        if kind == "unknown":
            raise SchemaFault(at, "is no JSON value")
        return value

    def _object(self, source: Mapping[str, Any], at: str, depth: int, form: dict[str, Any]) -> None:
        properties = source.get("properties", {})
        if not isinstance(properties, Mapping):
            raise SchemaFault(_at(at, "properties"), "must be an object")
        for name in properties:
            _text(name, _at(at, "properties"), MAX_NAME)
        where = _at(at, "properties")
        form["properties"] = {
            name: self.schema(properties[name], _at(where, name), depth + 1) for name in sorted(properties)
        }
        opened = source.get("additionalProperties", False)
        if not isinstance(opened, bool):
            raise SchemaFault(_at(at, "additionalProperties"), "must be true or false")
        form["additionalProperties"] = opened
        names: set[str] = set()
        for index, name in enumerate(_sequence(source.get("required", []), _at(at, "required"))):
            where = _at(_at(at, "required"), index)
            self._node(where, depth)
            name = _text(name, where, MAX_NAME)
            if not opened and name not in properties:
                raise SchemaFault(where, "is required, but is no property: nothing can satisfy it")
            names.add(name)
        if names:
            form["required"] = sorted(names)
        _sizes(source, at, "Properties", form)
        if not opened and form.get("minProperties", 0) > len(properties):
            raise SchemaFault(
                _at(at, "minProperties"), "is more than there are properties: nothing can satisfy it"
            )
        if form.get("maxProperties", len(names)) < len(names):
            raise SchemaFault(
                _at(at, "maxProperties"), "is less than what is required: nothing can satisfy it"
            )

    def _array(self, source: Mapping[str, Any], at: str, depth: int, form: dict[str, Any]) -> None:
        if "items" in source:
            form["items"] = self.schema(source["items"], _at(at, "items"), depth + 1)
        elif not _LISTED & source.keys():
            raise SchemaFault(at, "an array needs items, or its values listed")
        _sizes(source, at, "Items", form)

    def _string(self, source: Mapping[str, Any], at: str, form: dict[str, Any]) -> None:
        _sizes(source, at, "Length", form)
        if "pattern" in source:
            where = _at(at, "pattern")
            if not isinstance(source["pattern"], str):
                raise SchemaFault(where, "must be a string")
            try:
                form["pattern"] = patterns.anchored(source["pattern"])
            except patterns.PatternFault as fault:
                raise SchemaFault(where, str(fault)) from None

    def _number(self, source: Mapping[str, Any], at: str, form: dict[str, Any]) -> None:
        for name in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
            if name in source:
                if kind_of(source[name]) != "number":
                    raise SchemaFault(_at(at, name), "must be a number")
                form[name] = _finite(source[name], _at(at, name))
        if not _has_room(form):
            raise SchemaFault(at, "its bounds exclude each other: nothing can satisfy it")


def _has_room(form: Mapping[str, Any]) -> bool:
    """True unless the bounds exclude every integer, or every number, within ±2^53."""
    low = max(form.get("minimum", -MAX_NUMBER), form.get("exclusiveMinimum", -math.inf))
    high = min(form.get("maximum", MAX_NUMBER), form.get("exclusiveMaximum", math.inf))
    above = form.get("exclusiveMinimum", -math.inf) >= low
    below = form.get("exclusiveMaximum", math.inf) <= high
    if form["type"] == "integer":
        first = math.floor(low) + 1 if above else math.ceil(low)
        last = math.ceil(high) - 1 if below else math.floor(high)
        return bool(first <= last)
    return bool(low < high or (low == high and not above and not below))


def _check_listed(form: dict[str, Any], listed: Mapping[str, list[Any]], at: str) -> None:
    """Puts the listed values into the form. Refuses values of another type, and a list of which no value can pass."""
    for name, values in listed.items():
        for value in values:
            if kind_of(value) != ("number" if form["type"] == "integer" else form["type"]):
                raise SchemaFault(_at(at, name), f"has a value that is no {form['type']}")
        form[name] = values if name == "enum" else values[0]
    if listed:
        candidates = listed.get("const") or listed["enum"]
        found = [misses(form, value) for value in candidates]
        if all(found):
            raise SchemaFault(
                at, "none of its listed values passes what stands beside them: nothing can satisfy it"
            )


def _type_name(source: Mapping[str, Any], at: str) -> str:
    kind = source["type"]
    if not isinstance(kind, str) or kind not in _KEYWORDS:
        raise SchemaFault(_at(at, "type"), f"must be one of {', '.join(_KEYWORDS)}")
    return kind


def _common_type(values: Sequence[Any], at: str) -> str:
    kinds = {kind_of(value) for value in values}
    if len(kinds) > 1:
        raise SchemaFault(at, "lists values of several types: use anyOf, one type each")
    kind = kinds.pop()
    return "integer" if kind == "number" and all(map(is_whole, values)) else kind


def _sequence(value: object, at: str) -> Sequence[Any]:
    if not isinstance(value, (list, tuple)):
        raise SchemaFault(at, "must be an array")
    return value


def _text(value: object, at: str, limit: int) -> str:
    if not isinstance(value, str):
        raise SchemaFault(at, "must be a string")
    if len(value) > limit:
        raise SchemaFault(at, f"is longer than {limit} characters")
    if not well_formed(value):
        raise SchemaFault(at, "is no well-formed Unicode")
    return value


def _finite(value: Any, at: str) -> int | float:
    """The number, ``-0.0`` as ``0``. Refuses what is not exact in every evaluator."""
    if excess(value) is not None:
        raise SchemaFault(at, "must be a number within ±2^53")
    number: int | float = value
    return 0 if number == 0 else number


def _sizes(source: Mapping[str, Any], at: str, what: str, form: dict[str, Any]) -> None:
    for name in ("min" + what, "max" + what):
        if name in source:
            size = source[name]
            if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_NUMBER:
                raise SchemaFault(_at(at, name), "must be a whole number, 0 or more")
            form[name] = size
    if form.get("min" + what, 0) > form.get("max" + what, MAX_NUMBER):
        raise SchemaFault(_at(at, "min" + what), f"is more than max{what}: nothing can satisfy it")


def _shown(name: object) -> str:
    """A name from the document for a pointer, cut short: it may be anything."""
    return name[:64] if isinstance(name, str) else type(name).__name__
