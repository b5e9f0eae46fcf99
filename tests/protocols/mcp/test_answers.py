import json
from typing import Any

import pytest
from mcp_types import methods as sdk
from mcp_types.jsonrpc import JSONRPCError

from taskgrant.model.call import Answer
from taskgrant.protocols.mcp import answers
from taskgrant.protocols.sse import SseDecoder
from tests.protocols.mcp.support import (
    CODEC,
    JSON_TYPE,
    LEGACY,
    META,
    MODERN,
    OLD_SERVER,
    SERVER,
    body_of,
    call,
    head,
    legacy,
    modern,
    request,
)


def message(event: bytes) -> dict:
    (parsed,) = SseDecoder(10_000).feed(event)
    return json.loads(parsed.data)


@pytest.mark.parametrize("asked", ["2025-03-26", "2025-06-18", LEGACY])
def test_initialize(asked):
    params = {"protocolVersion": asked, "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
    parsed = call(legacy(request("initialize", params, "i")))
    answer = answers.initialize(parsed, SERVER, {"resources": {}, "tools": {"x": 1}}, "session-1")
    assert answer.headers == (("mcp-session-id", "session-1"),)
    body = body_of(answer)
    assert body["id"] == "i"
    assert body["result"]["capabilities"] == {"resources": {}, "tools": {"x": 1, "listChanged": True}}
    result: Any = sdk.parse_server_result("initialize", asked, body["result"])
    assert (result.protocol_version, result.server_info.name) == (asked, "mail")


def test_initialize_without_a_session_and_with_what_the_server_said():
    parsed = call(legacy(request("initialize", {"protocolVersion": LEGACY})))
    answer = answers.initialize(parsed, SERVER, info={"name": "Mail", "version": "3"})
    assert answer.headers == ()
    assert body_of(answer)["result"]["serverInfo"] == {"name": "Mail", "version": "3"}


def test_discover():
    body = body_of(answers.discover(call(modern("server/discover", {})), SERVER))
    result: Any = sdk.parse_server_result("server/discover", MODERN, body["result"])
    assert MODERN in result.supported_versions
    assert body["result"]["cacheScope"] == "private"


def test_discovering_a_server_of_old_makes_clients_initialize():
    sent = head(JSON_TYPE, ("mcp-protocol-version", MODERN), ("mcp-method", "server/discover"))
    body = json.dumps(request("server/discover", {"_meta": META})).encode()
    answer = answers.discover(call(CODEC.parse(OLD_SERVER, sent, body)), OLD_SERVER)
    assert answer.status == 404
    assert JSONRPCError.model_validate_json(answer.body).error.code == -32601


@pytest.mark.parametrize(
    "method", ["tools/list", "prompts/list", "resources/list", "resources/templates/list"]
)
def test_empty_lists(method):
    for parsed in (call(legacy(request(method))), call(modern(method, {}))):
        result = body_of(answers.empty_list(parsed))["result"]
        sdk.parse_server_result(method, parsed.version, result)
        if parsed.version == MODERN:
            assert (result["ttlMs"], result["cacheScope"]) == (0, "private")
        else:
            assert len(result) == 1


def test_small_answers():
    assert body_of(answers.pong(call(legacy(request("ping", None, "p"))))) == {
        "jsonrpc": "2.0",
        "id": "p",
        "result": {},
    }
    assert answers.accepted() == Answer(202, "", b"")
    assert answers.session_ended().status == 204
    assert answers.session_unknown(call(legacy(request("tools/list")))).status == 404
    assert answers.method_not_found(call(legacy(request("ping")))).status == 200


def test_list_changed():
    assert answers.wants_tool_changes(call(CODEC.parse(SERVER, head(("accept", "*/*"), method="GET"), b"")))
    changed = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
    assert message(answers.list_changed_event(LEGACY)) == changed
    assert message(answers.list_changed_event(LEGACY, 3)) == changed
    told = message(answers.list_changed_event(MODERN, 3))
    assert told["params"] == {"_meta": {"io.modelcontextprotocol/subscriptionId": 3}}
    sdk.parse_server_notification(told["method"], MODERN, told["params"])


@pytest.mark.parametrize("wanted", [{"toolsListChanged": True}, {"promptsListChanged": True}, {}])
def test_a_subscription_begins_and_ends_in_good_order(wanted):
    parsed = call(modern("subscriptions/listen", {"notifications": wanted}))
    begun = message(answers.listen_acknowledged_event(parsed))
    sdk.parse_server_notification(begun["method"], MODERN, begun["params"])
    honoured = {"toolsListChanged": True} if "toolsListChanged" in wanted else {}
    assert begun["params"]["notifications"] == honoured
    assert answers.wants_tool_changes(parsed) == bool(honoured)
    ended = message(answers.listen_ended_event(parsed))
    assert ended["id"] == parsed.rpc_id
    sdk.parse_server_result("subscriptions/listen", MODERN, ended["result"])
