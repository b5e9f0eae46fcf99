import json
from typing import Any

import pytest
from mcp_types import methods as sdk

from taskgrant.protocols.mcp import handshake
from taskgrant.protocols.mcp.handshake import HANDSHAKE_ID, Handshake, HandshakeFault, read_initialize
from tests.protocols.mcp.support import LEGACY, SERVER, again, call

INFO = {"name": "Mail", "version": "1"}


def answer(**members: object) -> dict:
    result = {"protocolVersion": LEGACY, "capabilities": {"tools": {}}, "serverInfo": INFO, **members}
    return {"jsonrpc": "2.0", "id": HANDSHAKE_ID, "result": result}


def test_the_request_is_one_that_servers_understand():
    sent = handshake.initialize_request(SERVER, LEGACY, {"roots": {}}, "1.2")
    body = json.loads(sent.body)
    parsed: Any = sdk.parse_client_request("initialize", LEGACY, body["params"])
    assert parsed.params.protocol_version == LEGACY
    assert body["params"]["capabilities"] == {"roots": {}}
    assert (sent.method, sent.url) == ("POST", SERVER.upstream)
    assert call(again(sent)).action == "initialize"


def test_the_rest_of_the_session_names_it():
    sent = handshake.initialized_notification(SERVER, LEGACY, "s")
    assert dict(sent.headers)["mcp-session-id"] == "s"
    assert call(again(sent)).action == "notifications/initialized"
    assert "mcp-session-id" not in dict(handshake.initialized_notification(SERVER, LEGACY, None).headers)
    ended = handshake.end_session(SERVER, LEGACY, "s")
    assert (ended.method, dict(ended.headers)) == (
        "DELETE",
        {"mcp-protocol-version": LEGACY, "mcp-session-id": "s"},
    )


def test_what_the_server_said_is_read():
    assert read_initialize(answer()) == Handshake(LEGACY, {"tools": {}}, INFO)


@pytest.mark.parametrize(
    "message",
    [
        {"jsonrpc": "2.0", "id": HANDSHAKE_ID, "error": {"code": -1, "message": "no"}},
        {**answer(), "id": 1},
        answer(protocolVersion="2026-07-28"),
        answer(protocolVersion="1999-01-01"),
        answer(protocolVersion=None),
        answer(capabilities=None),
        answer(serverInfo=[]),
    ],
)
def test_other_answers_open_no_session(message):
    with pytest.raises(HandshakeFault):
        read_initialize(message)


def test_of_what_a_client_states_only_marks_that_a_server_may_rely_on_go_on() -> None:
    stated: Any = {
        "roots": {"listChanged": True, "secret": "x"},
        "sampling": {"tools": {"smuggled": "data"}, "context": {}},
        "elicitation": {},
        "experimental": {"anything": 1},
    }
    assert handshake.client_capabilities(stated) == {
        "roots": {"listChanged": True},
        "sampling": {"tools": {}, "context": {}},
        "elicitation": {},
    }


@pytest.mark.parametrize("stated", [None, [], "roots", {"roots": True}, {"sampling": None}])
def test_what_is_no_capability_is_none(stated: Any) -> None:
    assert handshake.client_capabilities(stated) == {}
