import json
import sys
import unicodedata
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrant.protocols.strictjson import JsonFault, decode, encode, fold

REFUSED = {
    "empty": b"",
    "byte order mark": b"\xef\xbb\xbf{}",
    "utf-16": '{"a":1}'.encode("utf-16"),
    "utf-16 without mark": '{"a":1}'.encode("utf-16-le"),
    "overlong": b'"\xc0\xaf"',
    "surrogate in utf-8": b'"\xed\xa0\x80"',
    "nan": b'{"a":NaN}',
    "infinity": b"[Infinity]",
    "minus infinity": b"[-Infinity]",
    "overflow": b"[1e400]",
    "negative overflow": b"[-1e400]",
    "duplicate": b'{"a":1,"a":1}',
    "duplicate by escape": b'{"name":1,"n\\u0061me":2}',
    "duplicate, nested": b'[{"b":{"a":1,"a":2}}]',
    "case": b'{"id":1,"ID":2}',
    "long s": '{"s":1,"ſ":2}'.encode(),
    "kelvin": '{"kind":1,"\u212aind":2}'.encode(),
    "sharp s": '{"ß":1,"ẞ":2}'.encode(),
    "dotless i": '{"id":1,"\u0131d":2}'.encode(),
    "dotted i": '{"id":1,"İd":2}'.encode(),
    "sigma": '{"\u03c3":1,"\u03c2":2}'.encode(),
    "lone surrogate in a value": b'["\\ud800"]',
    "lone surrogate in a name": b'{"\\udc00":1}',
    "surrogates the wrong way round": b'"\\udc00\\ud800"',
    "too deep": b"[" * 65 + b"]" * 65,
    "too deep, objects": b'{"a":' * 65 + b"1" + b"}" * 65,
    "absurdly deep": b"[" * 200_000,
    "long integer": b"1" * 65,
    "absurd integer": b"[" + b"9" * 1_000_000 + b"]",
    "long float": b"0." + b"1" * 65,
    "trailing data": b"{} {}",
    "trailing comma": b"[1,]",
    "comment": b"[1/*x*/]",
    "single quotes": b"{'a':1}",
    "control character": b'"\x00"',
    "leading zero": b"01",
    "nul after": b"{}\x00",
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED.keys())
def test_what_readers_disagree_on_is_refused(body):
    with pytest.raises(JsonFault) as fault:
        decode(body)
    assert 0 < len(str(fault.value)) < 200


ACCEPTED = {
    "object": (b' {"a" : [1, -2.5, true, null, "x"]}\n', {"a": [1, -2.5, True, None, "x"]}),
    "pair of surrogates": (b'"\\ud83d\\ude00"', "😀"),
    "same name in two objects": (b'[{"a":1},{"A":2}]', [{"a": 1}, {"A": 2}]),
    "as deep as allowed": (b"[" * 64 + b"]" * 64, None),
    "underflow": (b"1e-400", 0.0),
    "brackets in strings": (b'"' + b"[" * 500 + b'"', "[" * 500),
    "wide": (b"[" + b",".join([b"[]"] * 500) + b"]", [[]] * 500),
}


@pytest.mark.parametrize(("body", "value"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_plain_json_is_read(body, value):
    assert value is None or decode(body) == value


def test_depth_is_the_callers_choice():
    with pytest.raises(JsonFault, match="deeper than 2"):
        decode(b"[[[1]]]", max_depth=2)
    assert decode(b"[[1]]", max_depth=2) == [[1]]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")))
def test_agrees_with_json_on_what_it_accepts(body):
    try:
        value = decode(body)
    except JsonFault:
        return
    assert json.loads(body) == value
    again = encode(value)
    assert decode(again) == value
    assert encode(decode(again)) == again


def test_fold_is_at_least_every_simple_case_mapping():
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        if unicodedata.category(character) == "Cs":
            continue
        folded = fold(character)
        for variant in (character.lower(), character.upper(), character.title(), character.casefold()):
            if variant != character:
                assert fold(variant) == folded, f"U+{code:04X}"


def test_encode_refuses_what_json_cannot_say():
    with pytest.raises(ValueError, match="JSON compliant"):
        encode(float("nan"))
    with pytest.raises(TypeError):
        encode(object())  # type: ignore[arg-type]
    assert encode(MappingProxyType({"a": range(2)})) == b'{"a":[0,1]}'
    assert encode({"ä": ("x",)}) == '{"ä":["x"]}'.encode()
