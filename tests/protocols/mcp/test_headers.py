import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared import inbound

from taskgrant.protocols.mcp.headers import HeaderFault, decode_value, encode_value

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXT | TEXT.map(lambda text: f"=?base64?{text}?="))
def test_values_survive_and_the_sdk_reads_them(value):
    encoded = encode_value(value)
    assert encoded.isascii()
    assert encoded.isprintable()
    assert decode_value(encoded) == value
    assert inbound.decode_header_value(encoded) == value
    assert decode_value(inbound.encode_header_value(value)) == value


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ("us-west1", "us-west1"),
        (" padded ", "=?base64?IHBhZGRlZCA=?="),
        ("", ""),
        ("a\nb", "=?base64?YQpi?="),
    ],
)
def test_encoding(value, encoded):
    assert encode_value(value) == encoded


@pytest.mark.parametrize("value", ["=?base64?YQ?=", "=?base64?Y Q==?=", "=?base64?YR==?=", "=?base64?/w==?="])
def test_broken_base64(value):
    with pytest.raises(HeaderFault):
        decode_value(value)
