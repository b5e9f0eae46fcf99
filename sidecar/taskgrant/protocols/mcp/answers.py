"""What the sidecar answers a client by itself, without any tool server: it owns the client's session."""

from collections.abc import Mapping
from types import MappingProxyType

from taskgrant.model.call import Answer, Call, Headers
from taskgrant.model.catalogue import Server
from taskgrant.model.json import Json, JsonObject
from taskgrant.protocols import jsonrpc, sse, strictjson
from taskgrant.protocols.mcp.headers import SESSION
from taskgrant.protocols.mcp.methods import LISTEN, is_modern, spoken

SUBSCRIPTION_META = "io.modelcontextprotocol/subscriptionId"
SERVER_INFO_META = "io.modelcontextprotocol/serverInfo"
TOOLS_CHANGED = "notifications/tools/list_changed"

_JSON = "application/json"
_LISTS: Mapping[str, str] = MappingProxyType(
    {
        "tools/list": "tools",
        "prompts/list": "prompts",
        "resources/list": "resources",
        "resources/templates/list": "resourceTemplates",
    }
)
_NOTHING: JsonObject = MappingProxyType({})


def initialize(
    call: Call,
    server: Server,
    capabilities: JsonObject = _NOTHING,
    session_id: str | None = None,
    info: JsonObject | None = None,
) -> Answer:
    """The handshake's answer. ``capabilities`` and ``info`` are what the server last said of itself, if it has.

    The revision is the call's: the codec has settled it from what the client asked for and the server speaks.
    """
    outcome: dict[str, Json] = {
        "protocolVersion": call.version,
        "capabilities": _with_tool_changes(capabilities),
        "serverInfo": info or _info(server),
    }
    headers: Headers = () if session_id is None else ((SESSION, session_id),)
    return _answer(call, outcome, headers)


def discover(
    call: Call, server: Server, capabilities: JsonObject = _NOTHING, info: JsonObject | None = None
) -> Answer:
    """The answer to ``server/discover``; for a server of old "method not found", which makes clients ``initialize``."""
    if not any(is_modern(version) for version in spoken(server)):
        return method_not_found(call)
    outcome: dict[str, Json] = {
        "resultType": "complete",
        "supportedVersions": list(spoken(server)),
        "capabilities": _with_tool_changes(capabilities),
        "ttlMs": 0,
        "cacheScope": "private",
        "_meta": {SERVER_INFO_META: info or _info(server)},
    }
    return _answer(call, outcome)


def pong(call: Call) -> Answer:
    return _answer(call, {})


def empty_list(call: Call) -> Answer:
    """An empty page for any of the four lists. Raises KeyError for a call that is none."""
    outcome: dict[str, Json] = {_LISTS[call.action]: []}
    if is_modern(call.version):
        outcome.update({"resultType": "complete", "ttlMs": 0, "cacheScope": "private"})
    return _answer(call, outcome)


def accepted() -> Answer:
    """A notification or a response was taken: 202 without a body."""
    return Answer(202, "", b"")


def session_ended() -> Answer:
    """The client has ended its session with DELETE."""
    return Answer(204, "", b"")


def session_unknown(call: Call) -> Answer:
    """The client's session is gone: 404, on which clients of old open a new one with ``initialize``."""
    body = jsonrpc.error(call.rpc_id, -32001, "Session not found")
    return Answer(404, _JSON, strictjson.encode(body))


def method_not_found(call: Call) -> Answer:
    """JSON-RPC -32601, with 404 where the revision asks for it."""
    body = jsonrpc.error(call.rpc_id, jsonrpc.METHOD_NOT_FOUND, f"Method not found: {call.action}")
    return Answer(404 if is_modern(call.version) else 200, _JSON, strictjson.encode(body))


def list_changed_event(version: str, subscription: str | int | None = None) -> bytes:
    """Tools have appeared or vanished. ``subscription`` is the id of the ``subscriptions/listen`` (2026-07-28)."""
    params: dict[str, Json] = {}
    if is_modern(version) and subscription is not None:
        params["_meta"] = {SUBSCRIPTION_META: subscription}
    return sse.encode(strictjson.encode(jsonrpc.message(TOOLS_CHANGED, params)))


def wants_tool_changes(call: Call) -> bool:
    """Whether the stream is one on which the client expects ``list_changed``."""
    if call.action != LISTEN:
        return True
    asked = call.params.get("notifications")
    return isinstance(asked, dict) and asked.get("toolsListChanged") is True


def listen_acknowledged_event(call: Call) -> bytes:
    """The first event on a ``subscriptions/listen`` stream that the sidecar serves: tool changes, if asked for."""
    honoured: dict[str, Json] = {"toolsListChanged": True} if wants_tool_changes(call) else {}
    params: dict[str, Json] = {"notifications": honoured, "_meta": {SUBSCRIPTION_META: call.rpc_id}}
    return sse.encode(strictjson.encode(jsonrpc.message("notifications/subscriptions/acknowledged", params)))


def listen_ended_event(call: Call) -> bytes:
    """The last event on such a stream: the response that ends the subscription in good order."""
    outcome: dict[str, Json] = {"resultType": "complete", "_meta": {SUBSCRIPTION_META: call.rpc_id}}
    return sse.encode(strictjson.encode(jsonrpc.result(call.rpc_id, outcome)))


def _answer(call: Call, outcome: JsonObject, headers: Headers = ()) -> Answer:
    return Answer(200, _JSON, strictjson.encode(jsonrpc.result(call.rpc_id, outcome)), headers)


def _info(server: Server) -> JsonObject:
    # Nothing has been asked of the server yet: the catalogue knows its name, and nobody its version.
    return {"name": server.name, "version": "unknown"}


def _with_tool_changes(capabilities: JsonObject) -> JsonObject:
    tools = capabilities.get("tools")
    return {**capabilities, "tools": {**(tools if isinstance(tools, dict) else {}), "listChanged": True}}
