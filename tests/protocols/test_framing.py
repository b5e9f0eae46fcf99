import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrant.model.call import Head, Malformed
from taskgrant.model.codes import Code
from taskgrant.protocols.framing import Absolute, FramingFault, Origin, check_head, parse_target

HOST = (b"Host", b"mail.example")

GOOD = {
    "plain": ("GET", "/a?b=c", [HOST]),
    "length": ("POST", "/", [HOST, (b"Content-Length", b"0")]),
    "chunked": ("POST", "/", [HOST, (b"Transfer-Encoding", b"chunked")]),
    "expect": ("POST", "/", [HOST, (b"Expect", b"100-continue")]),
    "absolute": ("GET", "http://mail.example/a", [HOST]),
    "absolute, default port": ("GET", "http://mail.example:80/a", [(b"host", b"MAIL.example")]),
    "absolute https": ("GET", "https://mail.example/a", [(b"host", b"mail.example:443")]),
    "repeated list": ("GET", "/", [HOST, (b"Accept", b"a/b"), (b"Accept", b"c/d")]),
}


@pytest.mark.parametrize(("method", "target", "headers"), GOOD.values(), ids=GOOD.keys())
def test_plain_heads_pass(method, target, headers):
    assert isinstance(check_head(method, target, (1, 1), headers), Head)


def test_names_are_lowered_and_values_trimmed():
    head = check_head("GET", "http://mail.example?x=1", (1, 1), [HOST, (b"X-A", b" \tb ")])
    assert head == Head("GET", "/", "x=1", (("host", "mail.example"), ("x-a", "b")))


BAD = {
    "no host": ("GET", "/", []),
    "two hosts": ("GET", "/", [HOST, HOST]),
    "list of hosts": ("GET", "/", [(b"Host", b"a, b")]),
    "host with userinfo": ("GET", "/", [(b"Host", b"a@b")]),
    "host with path": ("GET", "/", [(b"Host", b"a/b")]),
    "host with trailing dot": ("GET", "/", [(b"Host", b"mail.example.")]),
    "empty host": ("GET", "/", [(b"Host", b"")]),
    "port zero": ("GET", "/", [(b"Host", b"a:0")]),
    "te list": ("POST", "/", [HOST, (b"Transfer-Encoding", b"gzip, chunked")]),
    "te with comma": ("POST", "/", [HOST, (b"Transfer-Encoding", b",chunked")]),
    "te identity": ("POST", "/", [HOST, (b"Transfer-Encoding", b"identity")]),
    "te twice": ("POST", "/", [HOST, (b"Transfer-Encoding", b"chunked"), (b"transfer-encoding", b"chunked")]),
    "te and cl": ("POST", "/", [HOST, (b"Transfer-Encoding", b"chunked"), (b"Content-Length", b"3")]),
    "te with underscore": ("POST", "/", [HOST, (b"Transfer_Encoding", b"chunked")]),
    "cl twice": ("POST", "/", [HOST, (b"Content-Length", b"3"), (b"Content-Length", b"3")]),
    "cl list": ("POST", "/", [HOST, (b"Content-Length", b"3, 3")]),
    "cl signed": ("POST", "/", [HOST, (b"Content-Length", b"+3")]),
    "cl hex": ("POST", "/", [HOST, (b"Content-Length", b"0x3")]),
    "cl empty": ("POST", "/", [HOST, (b"Content-Length", b"")]),
    "name with space": ("GET", "/", [HOST, (b"X ", b"a")]),
    "name with colon": ("GET", "/", [HOST, (b"X:", b"a")]),
    "empty name": ("GET", "/", [HOST, (b"", b"a")]),
    "folded": ("GET", "/", [HOST, (b"X", b"a\r\n b")]),
    "nul": ("GET", "/", [HOST, (b"X", b"a\0")]),
    "latin-1": ("GET", "/", [HOST, (b"X", b"\xe9")]),
    "lower method": ("get", "/", [HOST]),
    "two offers": ("GET", "/", [HOST, (b"Upgrade", b"h2c"), (b"Upgrade", b"h2c")]),
    "odd method": ("GE T", "/", [HOST]),
    "other host": ("GET", "http://evil.example/", [HOST]),
    "other port": ("GET", "http://mail.example:81/", [HOST]),
}


@pytest.mark.parametrize(("method", "target", "headers"), BAD.values(), ids=BAD.keys())
def test_what_smuggles_is_refused(method, target, headers):
    refused = check_head(method, target, (1, 1), headers)
    assert isinstance(refused, Malformed)
    assert refused.code is Code.MALFORMED
    assert refused.status == 400


UNSUPPORTED = {
    "connect": ("CONNECT", "mail.example:443", (1, 1), [HOST]),
    "trace": ("TRACE", "/", (1, 1), [HOST]),
    "upgrade": ("GET", "/", (1, 1), [HOST, (b"Upgrade", b"websocket")]),
    "upgrade to one of two": ("GET", "/", (1, 1), [HOST, (b"Upgrade", b"h2c, websocket")]),
    "upgrade of old HTTP": ("GET", "/", (1, 0), [HOST, (b"Upgrade", b"h2c")]),
    "http2 settings": ("GET", "/", (1, 1), [HOST, (b"HTTP2-Settings", b"x")]),
    "expectation": ("GET", "/", (1, 1), [HOST, (b"Expect", b"magic")]),
    "http/2": ("GET", "/", (2, 0), [HOST]),
    "http/0.9": ("GET", "/", (0, 9), [HOST]),
    "other scheme": ("GET", "ftp://mail.example/", (1, 1), [HOST]),
}


@pytest.mark.parametrize(
    ("method", "target", "version", "headers"), UNSUPPORTED.values(), ids=UNSUPPORTED.keys()
)
def test_what_we_do_not_speak(method, target, version, headers):
    refused = check_head(method, target, version, headers)
    assert isinstance(refused, Malformed)
    assert refused.code is Code.UNSUPPORTED


@pytest.mark.parametrize(
    "headers", [[HOST, *([(b"X", b"a")] * 100)], [HOST, (b"X", b"a" * 40_000)]], ids=["many", "large"]
)
def test_headers_are_bounded(headers):
    refused = check_head("GET", "/", (1, 1), headers)
    assert isinstance(refused, Malformed)
    assert refused.code is Code.TOO_LARGE


def test_an_offer_to_go_on_in_http2_is_left_out():
    offer = [(b"Connection", b"Upgrade, HTTP2-Settings"), (b"Upgrade", b"h2c"), (b"HTTP2-Settings", b"AAMA")]
    head = check_head("GET", "/", (1, 1), [HOST, *offer])
    assert isinstance(head, Head)
    assert {name for name, _ in head.headers} == {"host", "connection"}


WEBSOCKET = {
    b"Upgrade": b"WebSocket",
    b"Connection": b"keep-alive, Upgrade",
    b"Sec-WebSocket-Key": b"AAAAAAAAAAAAAAAAAAAAAA==",
    b"Sec-WebSocket-Version": b"13",
}


def test_the_opening_of_a_websocket_is_left_to_who_knows_the_operation():
    head = check_head("GET", "/", (1, 1), [HOST, *WEBSOCKET.items()])
    assert isinstance(head, Head)
    assert head.get("upgrade") == "WebSocket"


@pytest.mark.parametrize(
    ("method", "version", "changed"),
    [
        ("POST", (1, 1), {}),
        ("GET", (1, 0), {}),
        ("GET", (1, 1), {b"Upgrade": b"websocket, h2c"}),
        ("GET", (1, 1), {b"Connection": b"close"}),
        ("GET", (1, 1), {b"Content-Length": b"1"}),
        ("GET", (1, 1), {b"Transfer-Encoding": b"chunked"}),
        ("GET", (1, 1), {b"Expect": b"100-continue"}),
        ("GET", (1, 1), {b"HTTP2-Settings": b"AAMA"}),
    ],
)
def test_an_opening_of_a_websocket_that_is_none(method, version, changed):
    refused = check_head(method, "/", version, [HOST, *(WEBSOCKET | changed).items()])
    assert isinstance(refused, Malformed)
    assert refused.code is Code.UNSUPPORTED


def test_old_http_may_lack_a_host_but_never_has_chunks():
    assert isinstance(check_head("GET", "/", (1, 0), []), Head)
    assert isinstance(check_head("GET", "/", (1, 0), [HOST, HOST]), Malformed)
    assert isinstance(check_head("POST", "/", (1, 0), [(b"Transfer-Encoding", b"chunked")]), Malformed)


TARGETS = {
    "/a/b?c=d?e": Origin("/a/b", "c=d?e"),
    "/%2e%2e/": Origin("/%2e%2e/", ""),
    "http://A.example": Absolute("http", "a.example", 80, "/", ""),
    "HTTPS://a.example:8443/x?y": Absolute("https", "a.example", 8443, "/x", "y"),
    "http://[::1]:8080/": Absolute("http", "[::1]", 8080, "/", ""),
}


@pytest.mark.parametrize(("target", "expected"), TARGETS.items())
def test_targets(target, expected):
    assert parse_target(target) == expected


@pytest.mark.parametrize(
    "target",
    [
        "", "*", "a", "//evil/x", "/a#b", "/a b", "/a\\b", "/é", "http://u@h/", "http://u:p@h/", "http:///x", "http://h:/",
        "http://h:99999/", "http://h//x", "http://h\\@e/", "mail.example:443", "/" + "a" * 20_000,
    ],
)  # fmt: skip
def test_other_targets_are_refused(target):
    with pytest.raises(FramingFault):
        parse_target(target)


@given(st.text(), st.text(), st.lists(st.tuples(st.binary(), st.binary())))
def test_never_raises(method, target, headers):
    assert isinstance(check_head(method, target, (1, 1), headers), Head | Malformed)
