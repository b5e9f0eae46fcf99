"""Hellos of a real TLS stack, hellos built byte by byte, and whatever else a client may send first."""

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrant.protocols.tls import MAX_BYTES, MAX_HELLO, ClientHello, NotHello, Partial, read_hello


def openssl_hello(name: str | None, alpn: tuple[str, ...] = ()) -> bytes:
    """What OpenSSL sends first."""
    context = ssl.create_default_context()
    if name is None:
        context.check_hostname = False
    if alpn:
        context.set_alpn_protocols(list(alpn))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def vector(size: int, data: bytes) -> bytes:
    return len(data).to_bytes(size) + data


def extension(kind: int, data: bytes) -> bytes:
    return kind.to_bytes(2) + vector(2, data)


def sni(*names: bytes, kind: int = 0) -> bytes:
    return extension(0, vector(2, b"".join(bytes([kind]) + vector(2, name) for name in names)))


def message(*extensions: bytes, tail: bytes = b"", kind: int = 1) -> bytes:
    body = b"\x03\x03" + bytes(32) + vector(1, b"") + vector(2, b"\x13\x01") + vector(1, b"\0")
    body += vector(2, b"".join(extensions)) + tail
    return bytes([kind]) + vector(3, body)


def records(data: bytes, size: int = 1 << 14) -> bytes:
    return b"".join(b"\x16\x03\x01" + vector(2, data[at : at + size]) for at in range(0, len(data), size))


def reason(data: bytes) -> str:
    found = read_hello(data)
    assert isinstance(found, NotHello), found
    return found.reason


@pytest.mark.parametrize("alpn", [(), ("http/1.1",), ("h2", "http/1.1")])
def test_a_hello_of_openssl(alpn):
    assert read_hello(openssl_hello("Mail.Example.ORG", alpn)) == ClientHello("mail.example.org", alpn)


def test_a_client_that_names_nobody():
    assert read_hello(openssl_hello(None)) == ClientHello(None)


def test_a_hello_without_extensions():
    body = b"\x03\x01" + bytes(32) + vector(1, b"") + vector(2, b"\0\x2f") + vector(1, b"\0")
    assert read_hello(records(b"\x01" + vector(3, body))) == ClientHello(None)


def test_an_encrypted_hello_is_seen_beside_the_outer_name():
    hello = records(message(sni(b"outer.example.org"), extension(0xFE0D, b"\0" * 40)))
    assert read_hello(hello) == ClientHello("outer.example.org", ech=True)


@pytest.mark.parametrize("size", [8, 9, 50, 1000])
def test_a_hello_in_several_records(size):
    assert read_hello(records(message(sni(b"a.example")), size)) == ClientHello("a.example")


@pytest.mark.parametrize(
    "name",
    [
        b"", b".", b"a..b", b"a.", b".a", b"-a.example", b"a-.example", b"192.0.2.1", b"2001:db8::1", b"[::1]",
        b"a.1", b"a b", b"a\0.example", b"a/b", b"a:443", b"\xc3\xa9.example", b"x" * 64 + b".example",
        b".".join([b"x" * 60] * 5), b"*.example",
    ],
)  # fmt: skip
def test_names_that_are_none(name):
    assert "no host name" in reason(records(message(sni(name))))


@pytest.mark.parametrize("name", [b"a", b"office", b"a_b.example", b"xn--bcher-kva.example", b"1.example"])
def test_names(name):
    assert read_hello(records(message(sni(name)))) == ClientHello(name.decode())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (records(message(sni(b"a.example", b"b.example"))), "longer"),
        (records(message(sni(b"a.example", kind=1))), "no host name"),
        (records(message(sni(b"a.example"), sni(b"b.example"))), "twice"),
        (records(message(extension(0, b""))), "shorter"),
        (records(message(extension(0, b"\0\x50a"))), "shorter"),
        (records(message(extension(16, b"\0\x03\x09h2"))), "shorter"),
        (records(message(extension(16, vector(2, b"") + b"!"))), "longer"),
        (records(message(sni(b"a.example"), tail=b"!")), "longer"),
        (records(message(sni(b"a.example")) + b"\x01"), "follows"),
        (records(message(kind=2)), "no client's hello"),
        (records(b"\x01" + (MAX_HELLO).to_bytes(3)), "too large"),
        (records(message(sni(b"a.example")), 1), "too many records"),
        (b"\x16\x03\x01\0\0", "length"),
        (b"\x16\x03\x01\x40\x01", "length"),
        (records(message(sni(b"a.example")), 40)[:45] + b"\x15\x03\x01\0\x02", "no TLS"),
    ],
)
def test_hellos_that_are_refused(data, said):
    assert said in reason(data)


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1", b"SSH-2.0-x\r\n", b"\x80\x2e\x01\0\x02", b"\x16\x02", b"\0"]
)
def test_what_is_no_tls(data):
    found = read_hello(data)
    assert isinstance(found, NotHello)
    assert not found.tls


def test_nothing_yet():
    assert read_hello(b"") == Partial(5)
    assert read_hello(b"\x16\x03\x01\x02\0") == Partial(5 + 512)


@given(
    st.binary(max_size=300)
    | st.binary(max_size=300).map(lambda tail: b"\x16\x03\x01" + tail)
    | st.binary(max_size=300).map(lambda body: records(b"\x01" + vector(3, body)))
    | st.binary(max_size=200).map(lambda more: records(message(more)))
)
def test_it_never_raises_and_says_what_it_misses(data):
    found = read_hello(data)
    if isinstance(found, Partial):
        assert len(data) < found.needed <= MAX_BYTES


@st.composite
def hellos(draw: st.DrawFn) -> bytes:
    """Good ones, cut anywhere, with any one byte changed, and something behind."""
    name = draw(st.sampled_from([b"a.example", b"mail.example.org", b"*"]))
    data = bytearray(
        records(message(sni(name), extension(16, vector(2, b"\x02h2"))), draw(st.integers(8, 200)))
    )
    if draw(st.booleans()):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data) + draw(st.binary(max_size=20))


@given(hellos())
def test_however_it_is_cut_the_answer_is_the_same(data):
    """Each answer but "more" is final: no further byte changes it; and below what was needed there was none."""
    answer, needed = None, 0
    for end in range(len(data) + 1):
        found = read_hello(data[:end])
        if answer is not None:
            assert found == answer
        elif isinstance(found, Partial):
            assert found.needed >= needed
            needed = found.needed
        else:
            answer = found
    # A length that was changed may announce more than there is, but never without end.
    assert answer is not None or not isinstance(read_hello(data.ljust(MAX_BYTES, b"\0")), Partial)
