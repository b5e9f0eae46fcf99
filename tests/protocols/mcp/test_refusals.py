import json
from typing import Any

import pytest
from mcp_types import methods as sdk
from mcp_types.jsonrpc import JSONRPCError

from taskgrant.model.call import Call, Kind, Malformed, Refusal
from taskgrant.model.codes import Code
from taskgrant.protocols.mcp.refusals import DENIED
from taskgrant.protocols.sse import SseDecoder
from tests.protocols.mcp.support import (
    CODEC,
    LEGACY,
    META,
    MODERN,
    SERVER,
    body_of,
    call,
    head,
    legacy,
    malformed,
    modern,
    request,
)

NO_GRANT = Refusal(Code.NO_GRANT, "no grant of this task covers it.", can_ask=True)
SEND = {"name": "send", "arguments": {"to": "secret@example.org"}}


def send(version: str) -> Call:
    return call(
        legacy(request("tools/call", SEND)) if version == LEGACY else modern("tools/call", SEND, name="send")
    )


@pytest.mark.parametrize("version", [LEGACY, MODERN])
def test_a_refused_tool_call_is_a_result_that_the_model_reads(version):
    answer = CODEC.refuse(send(version), NO_GRANT)
    assert (answer.status, answer.content_type) == (200, "application/json")
    body = body_of(answer)
    assert body["id"] == 1
    result = body["result"]
    assert result["isError"] is True
    assert result["_meta"] == {"taskgrant/code": "no_grant", "taskgrant/can_ask": True}
    assert ("resultType" in result) == (version == MODERN)
    (text,) = [part["text"] for part in result["content"]]
    assert text == '"send" was refused: no grant of this task covers it. Access to it can be asked for.'
    assert "secret" not in answer.body.decode()
    parsed: Any = sdk.parse_server_result("tools/call", version, result)
    assert parsed.is_error


def test_denied_and_outcome_unknown_read_differently():
    denied = CODEC.refuse(send(LEGACY), Refusal(Code.REVOKED, "the grant was revoked"))
    begun = CODEC.refuse(send(LEGACY), Refusal(Code.REVOKED, "the grant was revoked", begun=True))
    unknown = CODEC.refuse(send(LEGACY), Refusal(Code.OUTCOME_UNKNOWN, "the tool server went away"))
    texts = [body_of(answer)["result"]["content"][0]["text"] for answer in (denied, begun, unknown)]
    assert "was refused" in texts[0]
    assert "outcome is unknown" in texts[1]
    assert "outcome of" in texts[2]
    assert all("was refused" not in text for text in texts[1:])


@pytest.mark.parametrize("method", ["tools/list", "resources/read", "initialize", "prompts/list"])
def test_other_requests_get_an_error(method):
    params = {"resources/read": {"uri": "u"}, "initialize": {"protocolVersion": LEGACY}}.get(method, {})
    answer = CODEC.refuse(call(legacy(request(method, params))), NO_GRANT)
    assert answer.status == 200
    error = JSONRPCError.model_validate_json(answer.body).error
    assert (error.code, error.data) == (DENIED, {"code": "no_grant", "can_ask": True})
    assert not -32099 <= DENIED <= -32020


def test_who_asked_for_a_task_gets_an_error():
    answer = CODEC.refuse(call(legacy(request("tools/call", {**SEND, "task": {"ttl": 1}}))), NO_GRANT)
    assert body_of(answer)["error"]["code"] == DENIED


@pytest.mark.parametrize(
    "message", [{"method": "notifications/cancelled", "params": {}}, {"id": 9, "result": {}}]
)
def test_what_has_no_response_gets_a_status(message):
    answer = CODEC.refuse(call(legacy({"jsonrpc": "2.0", **message})), NO_GRANT)
    assert answer.status == 403
    assert "id" not in body_of(answer)


def test_refused_streams():
    stream = Call(
        id=send(LEGACY).id, protocol="mcp", server="mail", action="GET", kind=Kind.STREAM, version=LEGACY
    )
    assert CODEC.refuse(stream, NO_GRANT).status == 403
    assert CODEC.refuse_event(stream, NO_GRANT).startswith(b": no_grant: ")


@pytest.mark.parametrize(
    ("parsed", "status", "error", "rpc_id"),
    [
        (legacy([]), 400, -32600, None),
        (legacy(request("nope")), 200, -32601, 1),
        (modern("nope", {}), 404, -32601, 1),
        (legacy(request("tools/call", {})), 400, -32602, 1),
        (CODEC.parse(SERVER, head(method="PUT"), b""), 405, -32600, None),
        (Malformed(Code.TOO_LARGE, "the body is too large"), 413, -32600, None),
        (Malformed(Code.UNKNOWN_SERVER, "no such server"), 404, -32600, None),
        (Malformed(Code.MALFORMED, "framing"), 400, -32600, None),
    ],
)
def test_what_is_no_call(parsed, status, error, rpc_id):
    fault = malformed(parsed)
    answer = CODEC.refuse(fault, Refusal(fault.code, fault.detail))
    body = body_of(answer)
    assert (answer.status, body["error"]["code"], body.get("id")) == (status, error, rpc_id)
    assert body["error"]["data"]["code"] == fault.code
    assert (("allow", "POST, GET, DELETE") in answer.headers) == (status == 405)


def test_unsupported_versions_name_the_supported_ones():
    sent = head(("content-type", "application/json"), ("mcp-protocol-version", "1999-01-01"))
    body = json.dumps(
        request("tools/list", {"_meta": {**META, "io.modelcontextprotocol/protocolVersion": "1999-01-01"}})
    )
    fault = malformed(CODEC.parse(SERVER, sent, body.encode()))
    data = body_of(CODEC.refuse(fault, Refusal(fault.code, fault.detail)))["error"]["data"]
    assert data["requested"] == "1999-01-01"
    assert MODERN in data["supported"]


def test_the_event_for_a_stream_that_has_begun_holds_the_same_message():
    parsed, refusal = send(MODERN), Refusal(Code.REVOKED, "the task has ended", begun=True)
    (event,) = SseDecoder(10_000).feed(CODEC.refuse_event(parsed, refusal))
    assert json.loads(event.data) == body_of(CODEC.refuse(parsed, refusal))
