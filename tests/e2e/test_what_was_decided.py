"""What was decided is what is forwarded: whatever an agent sends, a tool gets what policy saw, or nothing."""

import gzip
import json
import socket
from collections.abc import Iterator

import pytest

from tests.e2e.processes import installation
from tests.e2e.raw import GOOD, IMPATIENT, SOON, Bytes, exchange, passes, refused
from tests.e2e.stand import ANYTHING_AT_ALL, LEGACY, MODERN, VERSION_META, Stand, grant, rpc_body


@pytest.fixture(scope="module")
def stand(tmp_path_factory, opa_binary) -> Iterator[Stand]:
    with installation(tmp_path_factory.mktemp("stand"), opa_binary) as place:
        yield Stand.start(place, listen=IMPATIENT)


@pytest.fixture(scope="module")
def handle(stand) -> str:
    return stand.handle(grant(arguments=ANYTHING_AT_ALL), grant("comment", "desk", arguments=ANYTHING_AT_ALL))


@pytest.mark.parametrize("listener", ["gateway", "proxy"])
def test_the_request_to_be_spoilt_passes(stand, handle, listener):
    passes(Bytes(stand, handle, listener))


# -- the body ---------------------------------------------------------------------------------------------------------

CALL = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":%s}'
META = '"_meta":{"' + VERSION_META + '":"' + MODERN + '"}'
PARAMS = '{"name":"note","arguments":%s,' + META + "}"

BODIES = {
    "name twice": CALL % ('{"name":"note","name":"other","arguments":{},' + META + "}"),
    "name twice, once escaped": CALL % ('{"name":"note","n\\u0061me":"other","arguments":{},' + META + "}"),
    "name in two cases": CALL % ('{"name":"note","Name":"other","arguments":{},' + META + "}"),
    "params twice": '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{},"params":'
    + PARAMS % "{}"
    + "}",
    "params in two cases": (
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","PARAMS":{},"params":' + PARAMS % "{}" + "}"
    ),
    "argument twice": CALL % (PARAMS % '{"text":"a","text":"b"}'),
    "argument twice, deep": CALL % (PARAMS % '{"a":[{"b":{"c":1,"c":2}}]}'),
    "argument in two cases": CALL % (PARAMS % '{"text":"a","TEXT":"b"}'),
    "long s": CALL % (PARAMS % '{"subject":"a","ſubject":"b"}'),
    "Kelvin": CALL % (PARAMS % '{"key":"a","\\u212aey":"b"}'),
    "dotless i": CALL % (PARAMS % '{"id":"a","\u0131d":"b"}'),
    "NaN": CALL % (PARAMS % '{"n":NaN}'),
    "infinity": CALL % (PARAMS % '{"n":-Infinity}'),
    "overflowing": CALL % (PARAMS % '{"n":1e400}'),
    "endless number": CALL % (PARAMS % ('{"n":' + "9" * 100 + "}")),
    "half a surrogate pair": CALL % (PARAMS % '{"text":"\\ud800"}'),
    "half a surrogate pair as a name": CALL % (PARAMS % '{"\\udc00":1}'),
    "unknown member": '{"jsonrpc":"2.0","id":1,"method":"tools/call","also":1,"params":'
    + PARAMS % "{}"
    + "}",
    "unknown member of params": CALL % ('{"name":"note","arguments":{},"then":"other",' + META + "}"),
    "result beside a method": (
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","result":{},"params":' + PARAMS % "{}" + "}"
    ),
    "two documents": CALL % (PARAMS % "{}") + CALL % (PARAMS % "{}"),
    "trailing comma": CALL % (PARAMS % '{"a":1,}'),
    "comment": CALL % (PARAMS % "{} /* */"),
    "id is null": '{"jsonrpc":"2.0","id":null,"method":"tools/call","params":' + PARAMS % "{}" + "}",
    "id beyond 2^53": '{"jsonrpc":"2.0","id":9007199254740993,"method":"tools/call","params":{}}',
    "params is a list": CALL % "[1]",
    "arguments are a list": CALL % (PARAMS % "[]"),
    "too deep": CALL % (PARAMS % ('{"a":' + "[" * 500 + "]" * 500 + "}")),
    "deeper than any stack": CALL % (PARAMS % ('{"a":' + "[" * 20000)),
}


@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in BODIES.items()])
def test_bodies_that_two_readers_read_differently(stand, handle, body):
    request = Bytes(stand, handle)
    request.body = body.encode()
    refused(request, "malformed")


@pytest.mark.parametrize(
    "body",
    [
        b"\xef\xbb\xbf" + GOOD,
        GOOD.decode().encode("utf-16"),
        GOOD.replace(b'"a"', b'"\xff"'),
        GOOD.replace(b'"a"', b'"\xed\xa0\x80"'),
        GOOD.replace(b'"a"', b'"\xc0\xaf"'),
        GOOD + b"\x00",
        b"",
    ],
    ids=["byte order mark", "UTF-16", "no UTF-8", "surrogate in UTF-8", "overlong", "NUL", "empty"],
)
def test_bytes_that_are_no_utf8(stand, handle, body):
    request = Bytes(stand, handle)
    request.body = body
    refused(request, "malformed")


# -- headers that say something else ----------------------------------------------------------------------------------

DISAGREEING = {
    "another method": ("mcp-method", ["mcp-method: tools/list"]),
    "no method": ("mcp-method", []),
    "method twice": (None, ["mcp-method: tools/call"]),
    "another name": ("mcp-name", ["mcp-name: other"]),
    "name in another case": ("mcp-name", ["mcp-name: Note"]),
    "no name": ("mcp-name", []),
    "name twice": (None, ["mcp-name: other"]),
    "name in base64 of another": ("mcp-name", ["mcp-name: =?base64?b3RoZXI=?="]),
    "name in broken base64": ("mcp-name", ["mcp-name: =?base64?bm90ZR==?="]),
    "another argument": (None, ["mcp-param-text: b"]),
    "an argument that is none": (None, ["mcp-param-more: a"]),
    "argument twice": (None, ["mcp-param-text: a", "mcp-param-text: b"]),
    "another version": ("mcp-protocol-version", [f"mcp-protocol-version: {LEGACY}"]),
    "no version": ("mcp-protocol-version", []),
}


@pytest.mark.parametrize(
    ("gone", "lines"), [pytest.param(*case, id=name) for name, case in DISAGREEING.items()]
)
def test_headers_that_disagree_with_the_body(stand, handle, gone, lines):
    request = Bytes(stand, handle).having(*lines)
    if gone is not None:
        request.lines = [line for line in request.lines if not line.startswith(gone + ":") or line in lines]
    assert b"-32020" in refused(request, "malformed")


def test_headers_that_agree(stand, handle):
    passes(Bytes(stand, handle).having("mcp-param-text: a"))


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "identity", "gzip, gzip"])
def test_content_encodings_are_not_read(stand, handle, coding):
    request = Bytes(stand, handle).having(f"content-encoding: {coding}")
    request.body = gzip.compress(GOOD) if coding == "gzip" else GOOD
    refused(request, "unsupported")


@pytest.mark.parametrize(
    "media",
    [
        "text/plain",
        "application/json; charset=utf-16",
        "application/json, text/plain",
        "multipart/form-data",
        "",
    ],
)
def test_other_media_types(stand, handle, media):
    refused(Bytes(stand, handle).without("content-type").having(f"content-type: {media}"), "unsupported")


# -- framing ----------------------------------------------------------------------------------------------------------

LENGTH = f"content-length: {len(GOOD)}"
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(GOOD), GOOD)

FRAMINGS = {
    "length and chunks": [LENGTH, "transfer-encoding: chunked"],
    "chunks and length": ["transfer-encoding: chunked", LENGTH],
    "chunked twice": ["transfer-encoding: chunked", "transfer-encoding: chunked"],
    "chunked and another": ["transfer-encoding: chunked", "transfer-encoding: identity"],
    "chunked, then identity": ["transfer-encoding: chunked, identity"],
    "gzip, then chunked": ["transfer-encoding: gzip, chunked"],
    "an empty coding": ["transfer-encoding: ,chunked"],
    "a coding that is none": ["transfer-encoding: xchunked"],
    "quoted": ['transfer-encoding: "chunked"'],
    "vertical tab": ["transfer-encoding: \x0bchunked"],
    "underscore": [LENGTH, "transfer_encoding: chunked"],
    "space before the colon": ["transfer-encoding : chunked"],
    "folded": ["transfer-encoding:\r\n chunked"],
    "folded length": [f"content-length:\r\n {len(GOOD)}"],
    "two lengths": [LENGTH, "content-length: 0"],
    "the same length twice": [LENGTH, LENGTH],
    "lengths in a list": [f"content-length: {len(GOOD)}, {len(GOOD)}"],
    "signed": [f"content-length: +{len(GOOD)}"],
    "negative": ["content-length: -1"],
    "hexadecimal": [f"content-length: {len(GOOD):#x}"],
    "underscore in the length": [f"content_length: {len(GOOD)}"],
    "NUL in a value": [LENGTH, "x-a: b\x00c"],
    "bare carriage return": [LENGTH, "x-a: b\rtransfer-encoding: chunked"],
    "a line that is no field": [LENGTH, "garbage"],
    "an empty name": [LENGTH, ": a"],
    "underscore in ours": [LENGTH, "mcp_name: other"],
}


@pytest.mark.parametrize("lines", [pytest.param(lines, id=name) for name, lines in FRAMINGS.items()])
@pytest.mark.parametrize("chunks", [False, True])
def test_framings_that_smuggle(stand, handle, lines, chunks):
    request = Bytes(stand, handle)
    request.framing = lines
    request.body = CHUNKED if chunks else GOOD
    refused(request)


def test_chunks_are_framed_anew(stand, handle):
    request = Bytes(stand, handle)
    request.framing, request.body = ["transfer-encoding: chunked"], CHUNKED
    passes(request)
    assert "transfer-encoding" not in stand.tools.calls[-1].headers


def test_chunks_before_they_existed(stand, handle):
    request = Bytes(stand, handle)
    request.framing, request.body, request.version = ["transfer-encoding: chunked"], CHUNKED, "HTTP/1.0"
    refused(request)


@pytest.mark.parametrize(
    "body",
    [b"zz\r\n" + GOOD, b"%x\r\n%bXX0\r\n\r\n" % (len(GOOD), GOOD), b"-1\r\n" + GOOD, CHUNKED[:-7]],
    ids=["no size", "no end", "negative", "cut short"],
)
def test_chunks_that_are_none(stand, handle, body):
    request = Bytes(stand, handle)
    request.framing, request.body = ["transfer-encoding: chunked"], body
    refused(request)


TARGETS = {
    "another host": ("proxy", "http://tools.internal/mcp", "desk.internal"),
    "another port": ("proxy", "http://tools.internal/mcp", "tools.internal:8080"),
    "user information": ("proxy", "http://tools.internal@evil.example/mcp", "tools.internal"),
    "user and password": ("proxy", "http://a:b@tools.internal/mcp", "tools.internal"),
    "two hosts": ("proxy", "http://tools.internal/mcp", "tools.internal\r\nhost: desk.internal"),
    "no host": ("proxy", "http://tools.internal/mcp", ""),
    "origin-form at the proxy": ("proxy", "/mcp", "tools.internal"),
    "TLS at the proxy": ("proxy", "https://tools.internal/mcp", "tools.internal"),
    "trailing dot": ("proxy", "http://tools.internal./mcp", "tools.internal."),
    "fragment": ("proxy", "http://tools.internal/mcp#a", "tools.internal"),
    "dots": ("gateway", "/tools/../tools/mcp", None),
    "escaped dots": ("gateway", "/tools/%2e%2e/mcp", None),
    "escaped slash": ("gateway", "/tools%2fmcp", None),
    "two slashes": ("gateway", "//tools/mcp", None),
    "backslash": ("gateway", "/tools\\mcp", None),
    "a query": ("gateway", "/tools/mcp?a=b", None),
    "absolute-form at the gateway": ("gateway", "http://tools.internal/mcp", None),
    "a page that was rebound": ("gateway", "/tools/mcp", "evil.example"),
    "another's port": ("gateway", "/tools/mcp", "127.0.0.1:1"),
}


@pytest.mark.parametrize(("listener", "target", "host"), [pytest.param(*t, id=n) for n, t in TARGETS.items()])
def test_targets(stand, handle, listener, target, host):
    request = Bytes(stand, handle, listener)
    request.target = target
    request.host = request.host if host is None else host
    refused(request)


@pytest.mark.parametrize(
    "lines",
    [
        [
            "upgrade: h2c",
            "upgrade: h2c",
            "connection: upgrade, http2-settings",
            "http2-settings: AAMAAABkAAQAAP__",
        ],
        ["upgrade: h2c, websocket", "connection: upgrade"],
        ["upgrade: websocket", "connection: upgrade", "sec-websocket-version: 13"],
        ["http2-settings: AAMAAABkAAQAAP__"],
        ["expect: 200-ok"],
        ["expect: 100-continue", "expect: 100-continue"],
        ["origin: https://evil.example"],
    ],
    ids=[
        "h2c twice",
        "h2c and another",
        "WebSocket",
        "settings alone",
        "another expectation",
        "two expectations",
        "another origin",
    ],
)
def test_what_would_change_the_protocol(stand, handle, lines):
    request = Bytes(stand, handle).having(*lines)
    request.closing = False
    assert b" 101 " not in refused(request)


def test_the_bytes_after_an_upgrade_are_nobodys(stand, handle):
    request = Bytes(stand, handle).having("upgrade: websocket", "connection: upgrade")
    request.method, request.body, request.closing = "GET", b"", False
    good = Bytes(stand, handle).data()
    before = stand.received
    answer = exchange(stand, request.data() + good)
    assert stand.received == before
    assert answer.count(b"HTTP/1.1 ") == 1


def test_an_offer_of_http2_is_declined_and_reaches_nobody(stand, handle):
    """The call that it came with does, alone: what follows on the connection is nobody's."""
    request = Bytes(stand, handle).having(
        "upgrade: h2c", "connection: upgrade, http2-settings", "http2-settings: AAMA"
    )
    request.closing = False
    before = len(stand.tools.calls)
    answer = exchange(stand, request.data() + Bytes(stand, handle).data())
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    [seen] = stand.tools.calls[before:]
    assert not {"upgrade", "http2-settings"} & set(seen.headers)


@pytest.mark.parametrize("method", ["CONNECT", "TRACE", "post", "PRI", "PUT"])
def test_other_methods(stand, handle, method):
    request = Bytes(stand, handle)
    request.method = method
    refused(request)


def test_a_client_that_waits_to_be_told_to_go_on(stand, handle):
    request = Bytes(stand, handle).having("expect: 100-continue")
    head, _, body = request.data().partition(b"\r\n\r\n")
    before = len(stand.tools.calls)
    with socket.create_connection(stand.address("gateway"), SOON) as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)
        answer = b""
        while more := connection.recv(65536):
            answer += more
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert len(stand.tools.calls) == before + 1


# -- several requests on one connection -------------------------------------------------------------------------------


def spoken(stand: Stand, handle: str, tool: str, last: bool = False) -> bytes:
    request = Bytes(stand, handle).without("mcp-name").having(f"mcp-name: {tool}")
    request.body, request.closing = json.dumps(rpc_body(tool, {"text": tool})).encode(), last
    return request.data()


def test_each_request_of_a_connection_is_decided_on_its_own(stand, handle):
    before = len(stand.tools.calls)
    order = ["note", "other", "note", "forbidden", "note"]
    sent = b"".join(spoken(stand, handle, tool, at == 4) for at, tool in enumerate(order))
    answer = exchange(stand, sent)
    refusals = ['"isError":true' in part.decode() for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert refusals == [False, True, False, True, False]
    assert [call.tool for call in stand.tools.calls[before:]] == ["note"] * 3


def test_one_use_is_one_call_however_they_are_sent(stand):
    handle = stand.handle(grant(arguments=ANYTHING_AT_ALL, max_uses=1))
    before = len(stand.tools.calls)
    exchange(stand, b"".join(spoken(stand, handle, "note", at == 3) for at in range(4)))
    assert len(stand.tools.calls) == before + 1


def test_what_follows_a_refused_head_is_not_read(stand, handle):
    """Where its body ends would have to be guessed."""
    request = Bytes(stand, handle)
    request.framing, request.closing = [LENGTH, "transfer-encoding: chunked"], False
    before = stand.received
    answer = exchange(stand, request.data() + Bytes(stand, handle).data())
    assert stand.received == before
    assert answer.count(b"HTTP/1.") == 1


def test_nothing_of_the_agents_headers_reaches_a_tool(stand, handle):
    passes(
        Bytes(stand, handle).having(
            "authorization: Bearer stolen", "cookie: a=b", "x-forwarded-for: 10.0.0.1", "taskgrant-grant: forged",
            "x-http-method-override: DELETE", "traceparent: a", "te: trailers", "forwarded: for=a",
        )
    )  # fmt: skip
    headers = stand.tools.calls[-1].headers
    assert headers.keys() == {
        "host", "content-type", "accept", "mcp-protocol-version", "mcp-method", "mcp-name", "authorization",
        "user-agent", "accept-encoding", "content-length",
    }  # fmt: skip
    assert "stolen" not in headers["authorization"]
    assert handle not in str(headers)
