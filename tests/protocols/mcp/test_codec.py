import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrant.model.call import Call, Head, Kind, Malformed
from taskgrant.model.codes import Code
from taskgrant.protocols.mcp.headers import encode_value
from tests.protocols.mcp.support import (
    CODEC,
    JSON_TYPE,
    LEGACY,
    META,
    MODERN,
    OLD_SERVER,
    SERVER,
    again,
    body_of,
    call,
    head,
    legacy,
    malformed,
    modern,
    request,
)

SEND = {"name": "send", "arguments": {"to": "a@example.org"}}

KINDS = {
    "tools/call": (SEND, Kind.TOOL, "send", {"to": "a@example.org"}),
    "resources/read": ({"uri": "file:///a"}, Kind.TOOL, "mcp:resources/read", {"uri": "file:///a"}),
    "prompts/get": (
        {"name": "p", "arguments": {"x": "y"}},
        Kind.TOOL,
        "mcp:prompts/get",
        {"name": "p", "arguments": {"x": "y"}},
    ),
    "completion/complete": (
        {"ref": {"type": "ref/prompt", "name": "p"}, "argument": {"name": "x", "value": "y"}},
        Kind.TOOL,
        "mcp:completion/complete",
        {"ref": {"type": "ref/prompt", "name": "p"}, "argument": {"name": "x", "value": "y"}},
    ),
    "resources/subscribe": ({"uri": "u"}, Kind.TOOL, "mcp:resources/subscribe", {"uri": "u"}),
    "resources/unsubscribe": ({"uri": "u"}, Kind.TOOL, "mcp:resources/unsubscribe", {"uri": "u"}),
    "logging/setLevel": ({"level": "info"}, Kind.TOOL, "mcp:logging/setLevel", {"level": "info"}),
    "tasks/get": ({"taskId": "t"}, Kind.TOOL, "mcp:tasks/get", {"taskId": "t"}),
    "tasks/cancel": ({"taskId": "t"}, Kind.TOOL, "mcp:tasks/cancel", {"taskId": "t"}),
    "tasks/result": ({"taskId": "t"}, Kind.TOOL, "mcp:tasks/result", {"taskId": "t"}),
    "tools/list": ({"cursor": "c"}, Kind.LIST, None, {}),
    "prompts/list": ({}, Kind.LIST, None, {}),
    "resources/list": ({}, Kind.LIST, None, {}),
    "resources/templates/list": ({}, Kind.LIST, None, {}),
    "initialize": (
        {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}},
        Kind.SESSION,
        None,
        {},
    ),
    "ping": ({}, Kind.SESSION, None, {}),
}


@pytest.mark.parametrize(("method", "case"), KINDS.items(), ids=KINDS.keys())
def test_what_each_method_is_and_what_goes_on(method, case):
    params, kind, tool, arguments = case
    parsed = call(legacy(request(method, params)))
    assert (parsed.kind, parsed.tool, parsed.arguments) == (kind, tool, arguments)
    assert (parsed.action, parsed.server, parsed.protocol) == (method, "mail", "mcp")
    sent = CODEC.encode(SERVER, parsed)
    assert body_of(sent) == (request(method, params) if params else request(method))
    assert ("mcp-protocol-version", LEGACY) in sent.headers
    assert not any(name in ("mcp-method", "mcp-name") for name, _ in sent.headers)
    assert same(parsed, again(sent))


MODERN_KINDS: dict[str, tuple[dict[str, Any], str | None, Kind, str | None]] = {
    "tools/call": ({**SEND, "inputResponses": {"a": {}}, "requestState": "s"}, "send", Kind.TOOL, "send"),
    "resources/read": ({"uri": "file:///a"}, "file:///a", Kind.TOOL, "mcp:resources/read"),
    "prompts/get": ({"name": "p"}, "p", Kind.TOOL, "mcp:prompts/get"),
    "tasks/get": ({"taskId": "t"}, "t", Kind.TOOL, "mcp:tasks/get"),
    "tasks/update": ({"taskId": "t", "inputResponses": {}}, "t", Kind.TOOL, "mcp:tasks/update"),
    "tools/list": ({}, None, Kind.LIST, None),
    "server/discover": ({}, None, Kind.SESSION, None),
    "subscriptions/listen": ({"notifications": {"toolsListChanged": True}}, None, Kind.STREAM, None),
}


@pytest.mark.parametrize(("method", "case"), MODERN_KINDS.items(), ids=MODERN_KINDS.keys())
def test_the_modern_era(method, case):
    params, name, kind, tool = case
    parsed = call(modern(method, params, name=name))
    assert (parsed.kind, parsed.tool, parsed.version, parsed.meta) == (kind, tool, MODERN, META)
    sent = CODEC.encode(SERVER, parsed)
    assert body_of(sent) == request(method, {**params, "_meta": META})
    headers = dict(sent.headers)
    assert headers["mcp-method"] == method
    assert headers.get("mcp-name") == name
    assert same(parsed, again(sent))


def test_retries_keep_the_clients_answers_where_policy_sees_them():
    parsed = call(modern("tools/call", MODERN_KINDS["tools/call"][0], name="send"))
    assert parsed.params == {"inputResponses": {"a": {}}, "requestState": "s"}


@pytest.mark.parametrize(
    "message",
    [
        {"method": "notifications/initialized"},
        {"method": "notifications/cancelled", "params": {"requestId": 1, "reason": "r"}},
        {"method": "notifications/progress", "params": {"progressToken": "t", "progress": 1, "total": 2.5}},
        {"method": "notifications/roots/list_changed"},
    ],
)
def test_notifications(message):
    parsed = call(legacy({"jsonrpc": "2.0", **message}))
    assert (parsed.kind, parsed.tool, parsed.rpc_id) == (Kind.NOTICE, None, None)
    assert body_of(CODEC.encode(SERVER, parsed)) == {"jsonrpc": "2.0", **message}


@pytest.mark.parametrize("outcome", [{"result": {"roots": []}}, {"error": {"code": -1, "message": "no"}}])
def test_answers_of_the_client(outcome):
    parsed = call(legacy({"jsonrpc": "2.0", "id": "s1", **outcome}))
    assert (parsed.kind, parsed.rpc_id, parsed.params) == (Kind.ANSWER, "s1", outcome)
    sent = CODEC.encode(SERVER, parsed)
    assert body_of(sent) == {"jsonrpc": "2.0", "id": "s1", **outcome}
    assert same(parsed, again(sent))


def test_answers_that_the_protocol_does_not_have():
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {}}).encode()
    sent = head(JSON_TYPE, ("mcp-protocol-version", MODERN))
    assert malformed(CODEC.parse(SERVER, sent, body)).code is Code.MALFORMED
    named = head(JSON_TYPE, ("mcp-protocol-version", LEGACY), ("mcp-method", "tools/call"))
    assert malformed(CODEC.parse(SERVER, named, body)).rpc_error == -32020


def test_streams_and_ends_of_sessions():
    common = (("mcp-protocol-version", LEGACY), ("mcp-session-id", "s"))
    stream = call(CODEC.parse(SERVER, head(("accept", "text/event-stream"), *common, method="GET"), b""))
    assert (stream.kind, stream.action, stream.session) == (Kind.STREAM, "GET", "s")
    sent = CODEC.encode(SERVER, stream)
    assert (sent.method, sent.body) == ("GET", b"")
    assert dict(sent.headers) == {"accept": "text/event-stream", "mcp-protocol-version": LEGACY}
    ended = call(CODEC.parse(SERVER, head(*common, method="DELETE"), b""))
    assert (ended.kind, ended.action) == (Kind.NOTICE, "DELETE")
    assert CODEC.encode(SERVER, ended).method == "DELETE"


BODY = json.dumps(request("tools/call", SEND)).encode()
TRANSPORT = {
    "query": (head(JSON_TYPE, query="a=b"), BODY, Code.MALFORMED, 400),
    "put": (head(JSON_TYPE, method="PUT"), BODY, Code.UNSUPPORTED, 405),
    "no content type": (head(), BODY, Code.UNSUPPORTED, 415),
    "form": (head(("content-type", "application/x-www-form-urlencoded")), BODY, Code.UNSUPPORTED, 415),
    "other json": (head(("content-type", "application/vnd.api+json")), BODY, Code.UNSUPPORTED, 415),
    "other charset": (
        head(("content-type", "application/json; charset=utf-16")),
        BODY,
        Code.UNSUPPORTED,
        415,
    ),
    "gzip": (head(JSON_TYPE, ("content-encoding", "gzip")), BODY, Code.UNSUPPORTED, 415),
    "identity": (head(JSON_TYPE, ("content-encoding", "identity")), BODY, Code.UNSUPPORTED, 415),
    "two content types": (head(JSON_TYPE, JSON_TYPE), BODY, Code.MALFORMED, 400),
    "two versions": (head(JSON_TYPE, *[("mcp-protocol-version", LEGACY)] * 2), BODY, Code.MALFORMED, 400),
    "two names": (head(JSON_TYPE, *[("mcp-name", "send")] * 2), BODY, Code.MALFORMED, 400),
    "odd session": (head(JSON_TYPE, ("mcp-session-id", "a b")), BODY, Code.MALFORMED, 400),
    "long session": (head(JSON_TYPE, ("mcp-session-id", "a" * 257)), BODY, Code.MALFORMED, 400),
    "get with a body": (head(("accept", "text/event-stream"), method="GET"), b"{}", Code.MALFORMED, 400),
    "get for json": (head(("accept", "application/json"), method="GET"), b"", Code.UNSUPPORTED, 406),
    "modern get": (
        head(("accept", "*/*"), ("mcp-protocol-version", MODERN), method="GET"),
        b"",
        Code.UNSUPPORTED,
        405,
    ),
    "batch": (head(JSON_TYPE), b"[" + BODY + b"]", Code.UNSUPPORTED, 400),
    "not json": (head(JSON_TYPE), b"{", Code.MALFORMED, 400),
    "duplicate": (head(JSON_TYPE), BODY[:-1] + b',"id":1}', Code.MALFORMED, 400),
    "duplicate by case": (head(JSON_TYPE), BODY[:-1] + b',"Method":"ping"}', Code.MALFORMED, 400),
}


@pytest.mark.parametrize(("sent", "body", "code", "status"), TRANSPORT.values(), ids=TRANSPORT.keys())
def test_the_transport_is_strict(sent, body, code, status):
    refused = malformed(CODEC.parse(SERVER, sent, body))
    assert (refused.code, refused.status) == (code, status)


@pytest.mark.parametrize(
    "value", ["application/json", 'APPLICATION/JSON;charset="utf-8"', "application/json; charset=UTF-8"]
)
def test_json_content_types(value):
    call(CODEC.parse(SERVER, head(("content-type", value)), BODY))


PARAMS = {
    "unknown member": ("tools/call", {**SEND, "extra": 1}),
    "member of another method": ("tools/call", {**SEND, "uri": "u"}),
    "no name": ("tools/call", {"arguments": {}}),
    "empty name": ("tools/call", {"name": ""}),
    "long name": ("tools/call", {"name": "n" * 257}),
    "control in name": ("tools/call", {"name": "a\nb"}),
    "bidi in name": ("tools/call", {"name": "a\u202eb"}),
    "reserved name": ("tools/call", {"name": "mcp:resources/read"}),
    "reserved name in capitals": ("tools/call", {"name": "MCP:x"}),
    "numeric name": ("tools/call", {"name": 1}),
    "null arguments": ("tools/call", {"name": "a", "arguments": None}),
    "array arguments": ("tools/call", {"name": "a", "arguments": []}),
    "array meta": ("tools/call", {"name": "a", "_meta": []}),
    "null meta": ("tools/call", {"name": "a", "_meta": None}),
    "numeric cursor": ("tools/list", {"cursor": 1}),
    "boolean request id": ("notifications/cancelled", {"requestId": True}),
    "modern member": ("subscriptions/listen", {"notifications": {}}),
}


@pytest.mark.parametrize(("method", "params"), PARAMS.values(), ids=PARAMS.keys())
def test_nothing_unlisted_reaches_a_tool(method, params):
    message = request(method, params)
    if method.startswith("notifications/"):
        del message["id"]
    assert isinstance(legacy(message), Malformed)


UNKNOWN = [
    "tasks/list",
    "roots/list",
    "sampling/createMessage",
    "Tools/call",
    "tools/call ",
    "server/discover",
    "x",
]


@pytest.mark.parametrize("method", UNKNOWN)
def test_unknown_methods(method):
    refused = malformed(legacy(request(method, {})))
    assert (refused.code, refused.rpc_error, refused.status) == (Code.UNKNOWN_OPERATION, -32601, 200)
    assert refused.rpc_id == 1


@pytest.mark.parametrize("method", ["ping", "logging/setLevel", "resources/subscribe", "tasks/result", "x"])
def test_methods_that_the_modern_era_does_not_have(method):
    refused = malformed(modern(method, {}))
    assert (refused.code, refused.rpc_error, refused.status) == (Code.UNKNOWN_OPERATION, -32601, 404)


def test_requests_are_no_notifications_and_the_other_way_round():
    assert isinstance(legacy(request("notifications/initialized")), Malformed)
    assert isinstance(legacy({"jsonrpc": "2.0", "method": "tools/call", "params": SEND}), Malformed)


class TestHeadersAgainstTheBody:
    def sent(self, *headers: tuple[str, str], meta: object = META, params: dict = SEND) -> Call | Malformed:
        body = request("tools/call", {**params, "_meta": meta} if meta is not None else params)
        return CODEC.parse(SERVER, head(JSON_TYPE, *headers), json.dumps(body).encode())

    VERSION = ("mcp-protocol-version", MODERN)
    METHOD = ("mcp-method", "tools/call")
    NAME = ("mcp-name", "send")

    @pytest.mark.parametrize(
        "headers",
        [
            [METHOD, NAME],
            [VERSION, NAME],
            [VERSION, METHOD],
            [VERSION, ("mcp-method", "tools/list"), NAME],
            [VERSION, METHOD, ("mcp-name", "Send")],
            [VERSION, METHOD, ("mcp-name", "=?base64?c2VuZA?=")],
            [VERSION, METHOD, ("mcp-name", "=?base64?!!!!?=")],
            [VERSION, METHOD, ("mcp-name", "=?base64?/w==?=")],
            [("mcp-protocol-version", LEGACY), METHOD, NAME],
        ],
    )
    def test_a_disagreement_is_refused(self, headers):
        refused = malformed(self.sent(*headers))
        assert (refused.code, refused.rpc_error, refused.status) == (Code.MALFORMED, -32020, 400)

    def test_agreement_passes_also_in_base64(self):
        call(self.sent(self.VERSION, self.METHOD, self.NAME))
        call(self.sent(self.VERSION, self.METHOD, ("mcp-name", "=?base64?c2VuZA==?=")))

    def test_the_version_must_be_in_the_body(self):
        refused = malformed(self.sent(self.VERSION, self.METHOD, self.NAME, meta={}))
        assert refused.rpc_error == -32602

    def test_old_clients_need_no_headers_but_may_not_contradict(self):
        call(self.sent(meta=None))
        call(self.sent(self.METHOD, self.NAME, meta=None))
        assert malformed(self.sent(("mcp-method", "tools/list"), meta=None)).rpc_error == -32020
        assert malformed(self.sent(("mcp-name", "other"), meta=None)).rpc_error == -32020

    def test_names_that_are_no_ascii(self):
        parsed = call(modern("tools/call", {"name": "größe"}, name="=?base64?Z3LDtsOfZQ==?="))
        headers = dict(CODEC.encode(SERVER, parsed).headers)
        assert headers["mcp-name"] == "=?base64?Z3LDtsOfZQ==?="

    def test_a_name_where_there_is_none(self):
        assert malformed(modern("tools/list", {}, name="x")).rpc_error == -32020

    ARGUMENTS = {"region": "us-west1", "n": 42, "dry_run": True, "deep": {"Tenant": "t"}, "list": ["x"]}  # noqa: RUF012

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("region", "us-west1"),
            ("n", "42"),
            ("dry-run", "true"),
            ("tenant", "t"),
            ("region", "=?base64?dXMtd2VzdDE=?="),
        ],
    )
    def test_mirrored_parameters_go_on(self, name, value):
        params = {"name": "send", "arguments": self.ARGUMENTS}
        parsed = call(modern("tools/call", params, (f"mcp-param-{name}", value), name="send"))
        (mirrored,) = parsed.headers
        assert mirrored[0] == f"mcp-param-{name}"
        sent = CODEC.encode(SERVER, parsed)
        assert mirrored in sent.headers
        assert same(parsed, again(sent))

    @pytest.mark.parametrize(
        ("name", "value"),
        [("region", "eu"), ("region", ""), ("other", "us-west1"), ("list", "x"), ("dry-run", "True")],
    )
    def test_other_parameters_are_refused(self, name, value):
        params = {"name": "send", "arguments": self.ARGUMENTS}
        assert (
            malformed(modern("tools/call", params, (f"mcp-param-{name}", value), name="send")).rpc_error
            == -32020
        )

    def test_old_clients_have_no_mirrored_parameters(self):
        assert isinstance(
            legacy(request("tools/call", {"name": "a", "arguments": {"x": "y"}}), ("mcp-param-x", "y")),
            Malformed,
        )


class TestVersions:
    def test_unknown_versions(self):
        refused = malformed(
            CODEC.parse(SERVER, head(JSON_TYPE, ("mcp-protocol-version", "2024-11-05")), BODY)
        )
        assert (refused.code, refused.rpc_error, refused.status) == (Code.UNSUPPORTED, -32022, 400)
        assert refused.rpc_data == {"supported": list(SERVER.versions), "requested": "2024-11-05"}

    def test_what_the_server_does_not_speak_is_not_sent_to_it(self):
        modern_only = replace(SERVER, versions=(MODERN,))
        assert malformed(legacy(request("tools/call", SEND), server=modern_only)).rpc_error == -32022
        assert malformed(CODEC.parse(modern_only, head(JSON_TYPE), BODY)).rpc_error == -32022
        body = json.dumps(request("tools/list", {"_meta": META})).encode()
        sent = head(JSON_TYPE, ("mcp-protocol-version", MODERN), ("mcp-method", "tools/list"))
        assert malformed(CODEC.parse(OLD_SERVER, sent, body)).rpc_data == {
            "supported": ["2025-03-26", "2025-06-18", "2025-11-25"],
            "requested": MODERN,
        }

    def test_discovery_is_understood_for_every_server(self):
        body = json.dumps(request("server/discover", {"_meta": META})).encode()
        sent = head(JSON_TYPE, ("mcp-protocol-version", MODERN), ("mcp-method", "server/discover"))
        assert call(CODEC.parse(OLD_SERVER, sent, body)).kind is Kind.SESSION

    @pytest.mark.parametrize(
        ("asked", "given"),
        [("2025-06-18", "2025-06-18"), ("2024-11-05", LEGACY), (MODERN, LEGACY), ("9", LEGACY)],
    )
    def test_the_handshake_settles_the_version(self, asked, given):
        parsed = call(
            CODEC.parse(
                SERVER,
                head(JSON_TYPE),
                json.dumps(request("initialize", {"protocolVersion": asked})).encode(),
            )
        )
        assert parsed.version == given

    def test_a_client_that_says_nothing_speaks_the_oldest(self):
        assert call(CODEC.parse(SERVER, head(JSON_TYPE), BODY)).version == "2025-03-26"
        only = replace(SERVER, versions=(LEGACY,))
        assert call(CODEC.parse(only, head(JSON_TYPE), BODY)).version == LEGACY


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
OBJECT = st.dictionaries(TEXT, JSON, max_size=3)
MESSAGE = st.builds(
    request,
    st.sampled_from([*KINDS, *MODERN_KINDS]) | TEXT,
    st.one_of(
        OBJECT,
        st.fixed_dictionaries(
            {"name": TEXT}, optional={"arguments": OBJECT, "_meta": OBJECT, "task": OBJECT}
        ),
        st.fixed_dictionaries({"uri": TEXT}, optional={"requestState": TEXT, "_meta": OBJECT}),
        st.fixed_dictionaries({"taskId": TEXT, "inputResponses": OBJECT}),
    ),
    st.integers() | TEXT | st.none(),
)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            ["mcp-method", "mcp-name", "mcp-protocol-version", "mcp-session-id", "mcp-param-a", "accept"]
        ),
        st.sampled_from([MODERN, LEGACY, "tools/call", "*/*", "=?base64?YQ==?="]) | st.text(max_size=5),
    ),
    max_size=4,
)


@given(
    st.sampled_from(["POST", "GET", "DELETE", "PUT"]),
    HEADERS,
    st.binary() | MESSAGE.map(json.dumps).map(str.encode) | JSON.map(json.dumps).map(str.encode),
)
def test_any_bytes_are_a_call_that_goes_on_as_it_is_or_none(method, headers, body):
    parsed = CODEC.parse(SERVER, head(JSON_TYPE, *headers, method=method), body)
    if isinstance(parsed, Call):
        assert same(parsed, again(CODEC.encode(SERVER, parsed)))
    else:
        assert isinstance(parsed, Malformed)


@given(TEXT.filter(bool), OBJECT, st.dictionaries(st.sampled_from(["a", "b/c"]), JSON))
def test_what_was_decided_is_what_is_forwarded(name, arguments, meta):
    body = request("tools/call", {"name": name, "arguments": arguments, "_meta": {**meta, **META}})
    sent = (
        JSON_TYPE,
        ("mcp-protocol-version", MODERN),
        ("mcp-method", "tools/call"),
        ("mcp-name", encode_value(name)),
    )
    parsed = CODEC.parse(SERVER, head(*sent), json.dumps(body).encode())
    if isinstance(parsed, Call):
        assert (parsed.tool, parsed.arguments, parsed.meta) == (name, arguments, {**meta, **META})
        forwarded = CODEC.encode(SERVER, parsed)
        assert body_of(forwarded) == body
        assert same(parsed, again(forwarded))


def same(parsed: Call, other: Call | Malformed) -> bool:
    """The same call but for its id and the client's session, which does not go on."""
    if not isinstance(other, Call):
        raise AssertionError(other)
    return replace(other, id=parsed.id, session=parsed.session) == parsed


def test_methods_without_a_head_never_raise():
    assert isinstance(CODEC.parse(SERVER, Head("", "", ""), b""), Malformed)
