"""Refusals in MCP's own forms, readable by a model: what was refused, why, whether it can be asked for.

A refused ``tools/call`` is a result with ``isError``, which clients hand to the model; every other request gets a
JSON-RPC error with ``DENIED``. Never 401 or 403 for a request: those would start the client's own OAuth flow.
"""

from taskgrant.model.call import Answer, Call, Malformed, Refusal
from taskgrant.model.codes import Code
from taskgrant.model.json import Json, JsonObject
from taskgrant.protocols import jsonrpc, sse, strictjson
from taskgrant.protocols.mcp.methods import RESPONSE, TOOLS_CALL, is_modern
from taskgrant.protocols.wording import sentence

#: The JSON-RPC error of a refusal: in the range that JSON-RPC leaves to servers, outside what MCP keeps for itself.
DENIED = -32010
JSON = "application/json"

_CODE_META, _ASK_META = "taskgrant/code", "taskgrant/can_ask"
_STATUS = {Code.TOO_LARGE: 413, Code.OVERLOADED: 503, Code.UNKNOWN_SERVER: 404, Code.PEER_REFUSED: 403}
_ALLOW = (("allow", "POST, GET, DELETE"),)


def refuse(call: Call | Malformed, refusal: Refusal) -> Answer:
    """The whole answer to a request that was refused before anything was answered to it."""
    if isinstance(call, Malformed):
        return _refuse_malformed(call, refusal)
    message = _message(call, refusal)
    # A notification, an answer or a stream has no request whose response a client would read: the status tells.
    status = 200 if call.rpc_id is not None and _is_request(call) else 403
    return Answer(status, JSON, strictjson.encode(message))


def refuse_event(call: Call, refusal: Refusal) -> bytes:
    """The same as one event for a stream that has begun; for a stream that answers no request, a comment."""
    if call.rpc_id is None or not _is_request(call):
        return sse.comment(f"{refusal.code}: {_text(call, refusal)}")
    return sse.encode(strictjson.encode(_message(call, refusal)))


def _text(call: Call, refusal: Refusal) -> str:
    return sentence(f'"{call.tool or call.action}"', refusal)


def _is_request(call: Call) -> bool:
    return call.action != RESPONSE


def _message(call: Call, refusal: Refusal) -> dict[str, Json]:
    text = _text(call, refusal)
    # Who asked for a task (2025-11-25) expects one, and would not understand a plain result.
    if call.action != TOOLS_CALL or "task" in call.params:
        rpc_id = call.rpc_id if _is_request(call) else None
        return jsonrpc.error(rpc_id, DENIED, text, _data(refusal))
    outcome: dict[str, Json] = {
        "content": [{"type": "text", "text": text}],
        "isError": True,
        "_meta": {_CODE_META: refusal.code, _ASK_META: refusal.can_ask},
    }
    if is_modern(call.version):
        outcome["resultType"] = "complete"
    return jsonrpc.result(call.rpc_id, outcome)


def _data(refusal: Refusal) -> JsonObject:
    return {"code": refusal.code, "can_ask": refusal.can_ask}


def _refuse_malformed(fault: Malformed, refusal: Refusal) -> Answer:
    data: dict[str, Json] = dict(_data(refusal))
    if fault.rpc_data is not None:
        data.update(fault.rpc_data)
    rpc_error = jsonrpc.INVALID_REQUEST if fault.rpc_error is None else fault.rpc_error
    body = strictjson.encode(jsonrpc.error(fault.rpc_id, rpc_error, refusal.reason, data))
    status = fault.status or _STATUS.get(refusal.code, 400)
    return Answer(status, JSON, body, _ALLOW if status == 405 else ())
