"""What was decided is what is forwarded: whatever bytes an agent sends, a tool gets what policy saw, or nothing."""

import gzip
import json
import socket
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from taskgrant.audit.masking import digest
from tests.e2e.processes import installation, wait_for
from tests.e2e.stand import LEGACY, MODERN, VERSION_META, Stand, grant, rpc_body

#: Whatever the arguments: what is under test is what becomes of them.
OPEN = {"properties": {}, "additionalProperties": True}
GOOD = json.dumps(rpc_body("note", {"text": "a"})).encode()
SOON = 30.0


@pytest.fixture(scope="module")
def stand(tmp_path_factory, opa_binary) -> Iterator[Stand]:
    short = {"head_timeout": 0.5, "body_timeout": 0.5, "keepalive_timeout": 0.5}
    with installation(tmp_path_factory.mktemp("stand"), opa_binary) as place:
        yield Stand.start(place, listen=short)


@pytest.fixture(scope="module")
def handle(stand) -> str:
    return stand.handle(grant(arguments=OPEN), grant("comment", "desk", arguments=OPEN))


def exchange(stand: Stand, data: bytes, listener: str = "gateway") -> bytes:
    """Sends the bytes; everything that comes back until the sidecar closes the connection."""
    with socket.create_connection(stand.address(listener), SOON) as connection:
        received = b""
        try:
            connection.sendall(data)
            while more := connection.recv(65536):
                received += more
        except ConnectionError:
            pass  # it was done with us before we were
        return received


class Bytes:
    """A request that passes, to be spoilt in one place."""

    def __init__(self, stand: Stand, handle: str, listener: str = "gateway") -> None:
        self.stand = stand
        self.listener = listener
        host, port = stand.address(listener)
        self.host = f"{host}:{port}" if listener == "gateway" else "tools.internal"
        self.target = "/tools/mcp" if listener == "gateway" else "http://tools.internal/mcp"
        self.version = "HTTP/1.1"
        self.method = "POST"
        self.lines = [
            "content-type: application/json",
            f"mcp-protocol-version: {MODERN}",
            "mcp-method: tools/call",
            "mcp-name: note",
            f"taskgrant-task: {handle}",
        ]
        self.body = GOOD
        self.framing: list[str] | None = None
        self.closing = True

    def without(self, name: str) -> "Bytes":
        self.lines = [line for line in self.lines if not line.startswith(name + ":")]
        return self

    def having(self, *lines: str) -> "Bytes":
        self.lines += lines
        return self

    def data(self) -> bytes:
        framing = [f"content-length: {len(self.body)}"] if self.framing is None else self.framing
        host = [f"host: {self.host}"] if self.host else []
        lines = [f"{self.method} {self.target} {self.version}", *host, *self.lines, *framing]
        if self.closing:
            lines.append("connection: close")
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + self.body

    def sent(self) -> bytes:
        return exchange(self.stand, self.data(), self.listener)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def passes(request: Bytes) -> None:
    before = len(request.stand.tools.calls)
    assert status(answer := request.sent()) == 200, answer
    assert b'"isError":true' not in answer
    assert len(request.stand.tools.calls) == before + 1


def refused(request: Bytes, code: str | None = None) -> bytes:
    """No tool sees a byte, and the refusal is on record. ``code`` where it is the same whoever finds the fault."""
    stand = request.stand
    before = stand.received
    stand.mark()
    answer = request.sent()
    assert stand.received == before, "a tool server was reached"
    assert status(answer) != 200 or b'"isError":true' in answer or b'"error"' in answer, answer
    records = wait_for(stand.records, "the refusal is on record", stand.sidecar)
    assert "granted" not in {one["code"] for one in records}
    assert all(one["reason"] for one in records)
    if code is not None:
        assert code.encode() in answer, answer
        assert {one["code"] for one in records} == {code}
    return answer


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
        ["upgrade: h2c", "connection: upgrade, http2-settings", "http2-settings: AAMAAABkAAQAAP__"],
        ["upgrade: websocket", "connection: upgrade", "sec-websocket-version: 13"],
        ["http2-settings: AAMAAABkAAQAAP__"],
        ["expect: 200-ok"],
        ["expect: 100-continue", "expect: 100-continue"],
        ["origin: https://evil.example"],
    ],
    ids=["h2c", "WebSocket", "settings alone", "another expectation", "two expectations", "another origin"],
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
    handle = stand.handle(grant(arguments=OPEN, max_uses=1))
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


# -- arbitrary bytes --------------------------------------------------------------------------------------------------

SEEDS = ("modern", "legacy", "proxy", "desk")


def seed(stand: Stand, handle: str, name: str, body: bytes | None = None) -> bytes:
    request = Bytes(stand, handle, "proxy" if name == "proxy" else "gateway")
    if name == "legacy":
        request = request.without("mcp-protocol-version").without("mcp-method").without("mcp-name")
        request = request.having(f"mcp-protocol-version: {LEGACY}")
        request.body = json.dumps(
            {**rpc_body("note", {"text": "a"}), "params": {"name": "note", "arguments": {"text": "a"}}}
        ).encode()
    elif name == "desk":
        request.target, request.body = "/desk/tickets/7/comments", b'{"text":"a"}'
    if body is not None:
        request.body = body
    return request.data()


def uses(stand: Stand) -> Counter[tuple[str, str, str]]:
    """What was granted and contacted a tool since ``mark``, by the trail: server, tool, digest of the arguments."""
    return Counter(
        (one["server"], one["tool"], one["arguments_digest"])
        for one in stand.records()
        if one["code"] == "granted" and "serial" in one and "tool" in one
    )


def seen(stand: Stand, tools: int, desk: int) -> Counter[tuple[str, str, str]]:
    """The same, by what the tool servers received."""
    found: Counter[tuple[str, str, str]] = Counter()
    for request in stand.tools.calls[tools:]:
        if request.method == "tools/call":
            found["tools", request.tool, digest(request.arguments)] += 1
    for request in stand.desk.requests[desk:]:
        _, _, path = request.line.split(" ")[1].partition("/api/tickets/")
        members = json.loads(request.body) if request.body else {}
        found["desk", "comment", digest({"id": unquote(path.removesuffix("/comments")), **members})] += 1
    return found


def holds(stand: Stand, data: bytes, listener: str) -> int:
    """Nothing reaches a tool, or exactly what the trail says that policy saw. Answers how many calls did."""
    stand.mark()
    tools, desk = len(stand.tools.calls), len(stand.desk.requests)
    answer = exchange(stand, data, listener)
    reached = seen(stand, tools, desk)
    assert reached == uses(stand), answer
    assert reached.total() <= max(1, answer.count(b"HTTP/1.1 200 ")), answer
    assert stand.sidecar.popen.poll() is None
    return reached.total()


BOUNDED = settings(
    max_examples=70,
    deadline=None,
    derandomize=True,  # the same examples in every run: a failure here is the product's, never luck
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
#: What parsers trip over, beside plain bytes.
TRICKS = st.sampled_from(
    [b"\r\n", b"\n", b"\r", b"\x00", b" ", b"\t", b":", b"{", b"}", b'"', b",", b"\\u0000", b"0\r\n\r\n",
     b"transfer-encoding: chunked\r\n", b"content-length: 0\r\n", b"HTTP/1.1", b"GET / HTTP/1.1\r\n\r\n", b"\xff"]
)  # fmt: skip
EDITS = st.lists(
    st.tuples(st.integers(0, 1200), st.integers(0, 40), TRICKS | st.binary(max_size=12)),
    min_size=1,
    max_size=3,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("name", SEEDS)
def test_what_is_to_be_changed_passes(stand, handle, name):
    assert holds(stand, seed(stand, handle, name), "proxy" if name == "proxy" else "gateway") == 1


@BOUNDED
@given(name=st.sampled_from(SEEDS), edits=EDITS)
def test_a_request_with_bytes_changed(stand, handle, name, edits):
    data = seed(stand, handle, name)
    for at, length, new in edits:
        at = at % (len(data) + 1)
        data = data[:at] + new + data[at + length :]
    holds(stand, data, "proxy" if name == "proxy" else "gateway")


@BOUNDED
@given(name=st.sampled_from(SEEDS), arguments=st.dictionaries(st.text(max_size=6), JSON, max_size=5) | JSON)
@example(name="modern", arguments={"n": 2**63, "f": 1.0, "z": -0.0, "e": 1e-7, "s": "\u2028\U0001f600"})
@example(name="desk", arguments={"text": {"a": [None, True, 0.1]}})
def test_any_arguments(stand, handle, name, arguments):
    """Well framed, so that most pass: what arrives is what was on record."""
    body: Any = arguments
    if name == "legacy":
        body = {**rpc_body("note", arguments), "params": {"name": "note", "arguments": arguments}}
    elif name != "desk":
        body = rpc_body("note", arguments)
    encoded = json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
    holds(stand, seed(stand, handle, name, encoded), "proxy" if name == "proxy" else "gateway")


@BOUNDED
@given(listener=st.sampled_from(["gateway", "proxy"]), data=st.binary(min_size=1, max_size=200) | TRICKS)
def test_noise(stand, listener, data):
    holds(stand, data, listener)
