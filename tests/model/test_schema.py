"""The fragment: what authors may write, what becomes of it, and that everything else is refused at its place."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrant.model.matching import misses
from taskgrant.model.schema import MAX_DEPTH, MAX_NODES, SchemaFault, canonical
from tests.model.strategies import DOCUMENTS, FORMS, VALUES, storable

CLOSED = {"type": "object", "properties": {}, "additionalProperties": False}


def one(schema: Any) -> dict[str, Any]:
    return {"properties": {"x": schema}}


@pytest.mark.parametrize(
    "document, form",
    [
        pytest.param(None, CLOSED, id="none admits nothing"),
        pytest.param({}, CLOSED, id="empty admits nothing"),
        pytest.param(
            {"additionalProperties": True}, CLOSED | {"additionalProperties": True}, id="open, in words"
        ),
        pytest.param(
            {
                "properties": {
                    "to": {"enum": ["a@example.org"]},
                    "subject": {"type": "string", "maxLength": 200},
                },
                "required": ["to"],
            },
            {
                "type": "object",
                "properties": {
                    "subject": {"type": "string", "maxLength": 200},
                    "to": {"type": "string", "enum": ["a@example.org"]},
                },
                "additionalProperties": False,
                "required": ["to"],
            },
            id="the example of the documentation",
        ),
        pytest.param(
            {"type": "object", "anyOf": [{"properties": {"a": {"const": 1}}}, {}]},
            {"anyOf": [CLOSED | {"properties": {"a": {"type": "integer", "const": 1}}}, CLOSED]},
            id="alternatives",
        ),
        pytest.param(
            {"required": [], "minProperties": 0}, CLOSED | {"minProperties": 0}, id="empty required"
        ),
    ],
)
def test_documents(document: Any, form: Any) -> None:
    assert canonical(document) == form


@pytest.mark.parametrize(
    "schema, form",
    [
        ({"enum": [1, 1.0, 2]}, {"type": "integer", "enum": [1, 2]}),
        ({"enum": [1, 1.5]}, {"type": "number", "enum": [1, 1.5]}),
        ({"const": True}, {"type": "boolean", "const": True}),
        ({"const": None}, {"type": "null", "const": None}),
        ({"const": -0.0}, {"type": "integer", "const": 0}),
        ({"const": [1, [True]]}, {"type": "array", "const": [1, [True]]}),
        ({"type": "array", "items": {"type": "null"}}, {"type": "array", "items": {"type": "null"}}),
        ({"type": "string", "pattern": "a|b"}, {"type": "string", "pattern": "^(?:a|b)$"}),
        ({"type": "number", "minimum": 0.5, "maximum": 0.5}, {"type": "number", "minimum": 0.5, "maximum": 0.5}),
        ({"type": "object"}, CLOSED),
        ({"anyOf": [{"const": 1}, {"const": "1"}]},
         {"anyOf": [{"type": "integer", "const": 1}, {"type": "string", "const": "1"}]}),
    ],
)  # fmt: skip
def test_schemas(schema: Any, form: Any) -> None:
    made = canonical(one(schema))
    assert made["properties"] == {"x": form}
    assert json.dumps(made["properties"]) == json.dumps({"x": form})  # 1 == True in Python


def nested(levels: int) -> Any:
    schema: Any = {"type": "null"}
    for _ in range(levels - 1):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    "document, pointer",
    [
        pytest.param([], "", id="array"),
        pytest.param(True, "", id="true"),
        pytest.param("{}", "", id="text"),
        pytest.param({"$schema": "http://json-schema.org/draft-04/schema#"}, "/$schema", id="$schema"),
        pytest.param({"$ref": "#"}, "/$ref", id="$ref"),
        pytest.param(one({"$ref": "#"}), "/properties/x/$ref", id="$ref below"),
        pytest.param(one({"type": "string", "format": "email"}), "/properties/x/format", id="format"),
        pytest.param({"patternProperties": {}}, "/patternProperties", id="patternProperties"),
        pytest.param({"not": {}}, "/not", id="not"),
        pytest.param({"if": {}}, "/if", id="if"),
        pytest.param({"allOf": []}, "/allOf", id="allOf"),
        pytest.param({"oneOf": []}, "/oneOf", id="oneOf"),
        pytest.param({"properites": {}}, "/properites", id="misspelt"),
        pytest.param({"description": "x"}, "/description", id="annotation"),
        pytest.param({"a/b~": 1}, "/a~1b~0", id="pointer is escaped"),
        pytest.param({"type": "string"}, "/type", id="top level is no object"),
        pytest.param({"type": ["object"]}, "/type", id="list of types"),
        pytest.param({"anyOf": [{"type": "string"}]}, "/anyOf/0/type", id="alternative is no object"),
        pytest.param({"anyOf": []}, "/anyOf", id="no alternative"),
        pytest.param({"anyOf": [{}], "properties": {}}, "/properties", id="anyOf with siblings"),
        pytest.param({"additionalProperties": {"type": "string"}}, "/additionalProperties", id="schema for others"),
        pytest.param({"additionalProperties": 1}, "/additionalProperties", id="open by number"),
        pytest.param({"required": ["x"]}, "/required/0", id="required and closed"),
        pytest.param({"required": "x"}, "/required", id="required is text"),
        pytest.param({"minProperties": 1}, "/minProperties", id="more than closed allows"),
        pytest.param(one({"type": "string"}) | {"required": ["x"], "maxProperties": 0}, "/maxProperties", id="less"),
        pytest.param({"enum": [{}]}, "/enum/0", id="object in a list"),
        pytest.param(one({}), "/properties/x", id="no type"),
        pytest.param(one(True), "/properties/x", id="true below"),
        pytest.param(one({"maxLength": 1}), "/properties/x", id="keyword without type"),
        pytest.param(one({"type": "number", "maxLength": 1}), "/properties/x/maxLength", id="keyword of another type"),
        pytest.param(one({"type": "string", "minLength": 2, "maxLength": 1}), "/properties/x/minLength", id="lengths"),
        pytest.param(one({"type": "string", "minLength": -1}), "/properties/x/minLength", id="negative"),
        pytest.param(one({"type": "string", "minLength": 1.0}), "/properties/x/minLength", id="float size"),
        pytest.param(one({"type": "string", "minLength": True}), "/properties/x/minLength", id="size is true"),
        pytest.param(one({"type": "string", "pattern": 1}), "/properties/x/pattern", id="pattern is a number"),
        pytest.param(one({"type": "string", "pattern": "(?=a)"}), "/properties/x/pattern", id="look-ahead"),
        pytest.param(one({"type": "string", "pattern": "a" * 513}), "/properties/x/pattern", id="long pattern"),
        pytest.param(one({"type": "array"}), "/properties/x", id="array of anything"),
        pytest.param(one({"type": "array", "items": []}), "/properties/x/items", id="tuple"),
        pytest.param(one({"type": "array", "items": {"type": "null"}, "uniqueItems": True}),
                     "/properties/x/uniqueItems", id="uniqueItems"),
        pytest.param(one({"type": "number", "minimum": 1, "maximum": 0}), "/properties/x", id="bounds"),
        pytest.param(one({"type": "number", "exclusiveMinimum": 1, "maximum": 1}), "/properties/x", id="half open"),
        pytest.param(one({"type": "integer", "minimum": 0.1, "maximum": 0.9}), "/properties/x", id="no integer there"),
        pytest.param(one({"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 1}), "/properties/x", id="nor"),
        pytest.param(one({"type": "number", "exclusiveMinimum": 2**53}), "/properties/x", id="beyond what is matched"),
        pytest.param(one({"type": "number", "exclusiveMinimum": True}), "/properties/x/exclusiveMinimum", id="draft 4"),
        pytest.param(one({"type": "number", "multipleOf": 2}), "/properties/x/multipleOf", id="multipleOf"),
        pytest.param(one({"const": 2**53 + 1}), "/properties/x/const", id="beyond 2^53"),
        pytest.param(one({"const": 1234567890123456780}), "/properties/x/const", id="far beyond 2^53"),
        pytest.param(one({"const": 1e300}), "/properties/x/const", id="float beyond 2^53"),
        pytest.param(one({"type": "number", "minimum": math.nan}), "/properties/x/minimum", id="NaN"),
        pytest.param(one({"type": "number", "maximum": math.inf}), "/properties/x/maximum", id="infinity"),
        pytest.param(one({"enum": []}), "/properties/x/enum", id="empty enum"),
        pytest.param(one({"enum": {}}), "/properties/x/enum", id="enum is an object"),
        pytest.param(one({"enum": [1, "1"]}), "/properties/x", id="mixed enum"),
        pytest.param(one({"enum": [1, True]}), "/properties/x", id="true is no number"),
        pytest.param(one({"type": "string", "enum": [1]}), "/properties/x/enum", id="enum of another type"),
        pytest.param(one({"type": "integer", "const": 1.5}), "/properties/x", id="no integer"),
        pytest.param(one({"enum": ["a"], "const": "b"}), "/properties/x", id="const outside enum"),
        pytest.param(one({"type": "string", "enum": ["aa"], "maxLength": 1}), "/properties/x", id="enum too long"),
        pytest.param(one({"const": [{}]}), "/properties/x/const/0", id="object in a const"),
        pytest.param(one({"const": "\ud800"}), "/properties/x/const", id="lone surrogate"),
        pytest.param({"properties": {"\ud800": {"const": 1}}}, "/properties", id="lone surrogate in a name"),
        pytest.param({"properties": {"x" * 257: {"const": 1}}}, "/properties", id="long name"),
        pytest.param({"properties": []}, "/properties", id="properties is an array"),
        pytest.param(one({"const": "x" * 4097}), "/properties/x/const", id="long text"),
        pytest.param(one({"enum": list(range(MAX_NODES))}), f"/properties/x/enum/{MAX_NODES - 2}", id="many values"),
        pytest.param(one(nested(MAX_DEPTH)), "/properties/x" + "/items" * (MAX_DEPTH - 1), id="deep"),
        pytest.param({"properties": {f"{n}": {"const": f"{n}" + "x" * 4000} for n in range(20)}}, "", id="large"),
    ],
)  # fmt: skip
def test_refused(document: Any, pointer: str) -> None:
    with pytest.raises(SchemaFault) as fault:
        canonical(document)
    assert fault.value.pointer == pointer
    assert fault.value.reason


def test_the_bounds_themselves_are_allowed() -> None:
    canonical(one({"enum": list(range(MAX_NODES - 2))}))
    canonical(one(nested(MAX_DEPTH - 1)))
    canonical(one({"enum": [2**53, -(2**53), float(2**53)]}))


def test_very_deep_documents_are_refused_without_recursion() -> None:
    with pytest.raises(SchemaFault, match="levels deep"):
        canonical(one(nested(900)))


@given(DOCUMENTS)
def test_canonical_is_a_fixed_point(document: Any) -> None:
    form = storable(document)
    if form is not None:
        again = canonical(form)
        assert json.dumps(again) == json.dumps(form)


@given(FORMS)
def test_objects_are_closed_unless_said(form: Any) -> None:
    def walk(schema: Any) -> None:
        if "anyOf" in schema:
            assert schema.keys() == {"anyOf"}
            for branch in schema["anyOf"]:
                walk(branch)
            return
        assert isinstance(schema["type"], str)
        if schema["type"] == "object":
            assert isinstance(schema["additionalProperties"], bool)
            for inner in schema["properties"].values():
                walk(inner)
        if "items" in schema:
            walk(schema["items"])

    walk(form)


KEYWORDS = ["type", "properties", "anyOf", "enum", "const", "items", "required", "pattern", "minimum"]


@given(st.recursive(VALUES, lambda inner: st.dictionaries(st.sampled_from(KEYWORDS), inner)))
def test_arbitrary_documents_are_refused_or_storable(document: Any) -> None:
    form = storable(document)
    if form is not None:
        assert json.loads(json.dumps(form)) == form


def test_a_closed_document_admits_only_what_it_names() -> None:
    form = canonical({"properties": {"a": {"type": "string"}}})
    assert not misses(form, {"a": ""})
    assert misses(form, {"a": "", "A": ""})
    assert misses(canonical(None), {"a": 1})
    assert not misses(canonical(None), {})
