"""CONNECT as bytes: what real clients send, and everything that two readers could understand differently."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrant.model.codes import Code
from taskgrant.protocols.connect import Connect, read_connect
from taskgrant.protocols.framing import FramingFault


def request(*fields: str, target: str = "a.example:443", version: str = "HTTP/1.1") -> bytes:
    return "\r\n".join([f"CONNECT {target} {version}", *fields, "", ""]).encode("latin-1")


@pytest.mark.parametrize(
    "fields",
    [
        (),
        ("Host: a.example:443",),
        ("Host: A.example", "Proxy-Connection: Keep-Alive", "User-Agent: curl/8"),
        ("host: a.example:443", "content-length: 0"),
    ],
)
def test_what_clients_send(fields):
    raw = request(*fields, target="A.example:443")
    found = read_connect(raw + b"\x16\x03\x01")
    assert found is not None
    assert (found.host, found.port, found.length) == ("a.example", 443, len(raw))


def test_headers_are_kept_and_addresses_of_ipv6_have_brackets():
    found = read_connect(
        request("Proxy-Authorization: Bearer h", target="[2001:db8::1]:8443", version="HTTP/1.0")
    )
    assert found == Connect(
        "[2001:db8::1]", 8443, (("proxy-authorization", "Bearer h"),), found.length if found else 0
    )


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (request(target="a.example"), Code.MALFORMED),
        (request(target="a.example:"), Code.MALFORMED),
        (request(target="a.example:0"), Code.MALFORMED),
        (request(target="a.example:0443"), Code.MALFORMED),
        (request(target="a.example:70000"), Code.MALFORMED),
        (request(target="user@a.example:443"), Code.MALFORMED),
        (request(target="a.example.:443"), Code.MALFORMED),
        (request(target="http://a.example:443/"), Code.MALFORMED),
        (request(target="/a"), Code.MALFORMED),
        (request(target="a.example:443 b.example:443"), Code.MALFORMED),
        (request(version="HTTP/2.0"), Code.MALFORMED),
        (request(version="HTTP/1.1 "), Code.MALFORMED),
        (request("Host: b.example:443"), Code.MISDIRECTED),
        (request("Host: a.example:80"), Code.MISDIRECTED),
        (request("Host: a.example:443", "Host: a.example:443"), Code.MISDIRECTED),
        (request("Host"), Code.MALFORMED),
        (request("Host : a.example:443"), Code.MALFORMED),
        (request("A: b", " folded"), Code.MALFORMED),
        (request("A: b\nC: d"), Code.MALFORMED),
        (request("A: b\rC: d"), Code.MALFORMED),
        (request("A_b: c"), Code.MALFORMED),
        (request("A: \xe9"), Code.MALFORMED),
        (request("Content-Length: 1"), Code.MALFORMED),
        (request("Transfer-Encoding: chunked"), Code.MALFORMED),
        (request(*["A: b"] * 101), Code.TOO_LARGE),
        (request("A: " + "b" * 40_000), Code.TOO_LARGE),
        (b"CONNECT " + b"a" * 40_000, Code.TOO_LARGE),
        (b"GET a.example:443 HTTP/1.1\r\n\r\n", Code.MALFORMED),
    ],
)
def test_what_is_refused(raw, code):
    with pytest.raises(FramingFault) as caught:
        read_connect(raw)
    assert caught.value.code is code


@given(
    st.binary(max_size=200)
    | st.binary(max_size=200).map(lambda more: b"CONNECT a.example:443 HTTP/1.1\r\n" + more)
)
def test_it_raises_nothing_else(data):
    try:
        found = read_connect(data)
    except FramingFault:
        return
    assert found is None or found.length <= len(data)


@given(st.integers(0, 200))
def test_half_a_request_is_none(count):
    raw = request("Host: a.example:443", "Proxy-Authorization: Bearer " + "h" * 140)
    found = read_connect(raw[:count])
    assert (found is None) is (count < len(raw))
