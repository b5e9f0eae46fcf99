"""Schemas of the fragment, as authors write them, and values that nearly fit: small alphabets, so that they meet."""

from typing import Any

from hypothesis import strategies as st

from taskgrant.model.schema import SchemaFault, canonical

NAMES = st.sampled_from(["a", "b", "$ref", "const", "id", "é", "a/b~c", ""])
TEXTS = st.sampled_from(
    [
        "",
        "a",
        "ab",
        "b",
        "a\nb",
        "a\n",
        "é",
        "e\u0301",
        "😀",
        "A",
        "1",
        "true",
        "a.b",
        "\0",
        "<&>",
        "\u2028",
        "\ufffd",
    ]
)
NUMBERS = st.sampled_from(
    [
        0,
        1,
        -1,
        2,
        1.0,
        0.0,
        -0.0,
        0.5,
        0.1,
        1e-7,
        5e-324,
        2**53,
        -(2**53),
        2**53 - 1,
        float(2**53),
        1e15,
        1.5,
        100,
    ]
)
SCALARS = st.one_of(TEXTS, NUMBERS, st.booleans(), st.none())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=6,
)
ARGUMENTS = st.dictionaries(NAMES, VALUES, max_size=4)
PATTERNS = st.one_of(
    st.sampled_from(
        ["a", "^a$", "a|b", "(?i)a", "(?s).*", ".*", "[^b]+", r"\w+", "$", "^", "a$\nb", r"a\.b", r"\p{L}+", "a*"]
    ),
    st.lists(
        st.sampled_from(
            [
                "a", "b", ".", "*", "+", "?", "(", "(?:", "(?i)", "(?s:", ")", "|", "[", "]", "^", "$", "-", "{",
                "}", ",", "{2}", "{0,3}", r"\d", r"\W", r"\b", r"\z", r"\A", r"\n", r"\-", r"\x{1F600}",
                "[:alpha:]", "\n", "é", "😀",
            ]
        ),
        max_size=7,
    ).map("".join),
)  # fmt: skip
_SIZES = st.integers(0, 3)
_LISTS = st.lists(st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=2), max_leaves=3), max_size=3)


def _some(always: dict[str, Any], /, **optional: Any) -> Any:
    return st.fixed_dictionaries(always, optional=optional)


_LEAVES = st.one_of(
    _some(
        {"type": st.just("string")},
        minLength=_SIZES, maxLength=_SIZES, pattern=PATTERNS, enum=st.lists(TEXTS, max_size=3),
    ),
    _some(
        {"type": st.sampled_from(["number", "integer"])},
        minimum=NUMBERS, maximum=NUMBERS, exclusiveMinimum=NUMBERS, exclusiveMaximum=NUMBERS, const=NUMBERS,
    ),
    _some({"type": st.sampled_from(["null", "boolean"])}, const=SCALARS),
    _some({}, enum=_LISTS, const=SCALARS),
)  # fmt: skip


def _object(inner: Any, **always: Any) -> Any:
    return _some(
        always,
        properties=st.dictionaries(NAMES, inner, max_size=3),
        required=st.lists(NAMES, max_size=2),
        additionalProperties=st.booleans(),
        minProperties=_SIZES,
        maxProperties=_SIZES,
    )


_INNER = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        _object(inner, type=st.just("object")),
        _some({"type": st.just("array"), "items": inner}, minItems=_SIZES, maxItems=_SIZES),
        _some({"anyOf": st.lists(inner, min_size=1, max_size=3)}),
    ),
    max_leaves=6,
)
DOCUMENTS = st.one_of(_object(_INNER), _some({"anyOf": st.lists(_object(_INNER), min_size=1, max_size=3)}))


def storable(document: Any) -> Any:
    """The canonical form, or None when the document is refused."""
    try:
        return canonical(document)
    except SchemaFault:
        return None


FORMS = DOCUMENTS.map(storable).filter(lambda form: form is not None)


@st.composite
def fitting(draw: Any, form: Any) -> Any:
    """A value that tries to fit a canonical schema: most do, and the rest miss it narrowly."""
    if "anyOf" in form:
        return draw(fitting(draw(st.sampled_from(form["anyOf"]))))
    if "const" in form:
        return draw(st.just(form["const"]) | SCALARS)
    if "enum" in form:
        return draw(st.sampled_from(form["enum"]) | SCALARS)
    kind = form["type"]
    if kind == "object":
        value = {
            name: draw(fitting(inner))
            for name, inner in form["properties"].items()
            if name in form.get("required", ()) or draw(st.booleans())
        }
        for name in form.get("required", ()):
            value.setdefault(name, draw(SCALARS))
        return value | draw(st.just({}) | st.dictionaries(NAMES, SCALARS, max_size=1))
    if kind == "array":
        return (
            [draw(fitting(form["items"])) for _ in range(draw(st.integers(0, 3)))] if "items" in form else []
        )
    if kind in ("number", "integer"):
        bounds = [form[name] for name in form if name not in ("type", "enum", "const")]
        return draw(st.sampled_from(bounds) | NUMBERS if bounds else NUMBERS)
    return draw({"string": TEXTS, "boolean": st.booleans(), "null": st.none()}[kind])
