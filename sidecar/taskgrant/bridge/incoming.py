"""What the gateway answered, as messages for the client. Pure.

Standard output carries JSON-RPC messages and nothing else, and each request gets one answer: what the sidecar says
otherwise (a problem document of RFC 9457, a page, nothing) becomes a JSON-RPC error that names the request.
"""

import json
from collections.abc import Mapping

from taskgrant.model.codes import Code
from taskgrant.model.json import Json, JsonObject
from taskgrant.protocols import jsonrpc
from taskgrant.protocols.mcp.refusals import DENIED

_SHOWN = 500


def read(data: bytes | str) -> JsonObject | None:
    """A JSON-RPC message; None for anything else."""
    try:
        value = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and value.get("jsonrpc") == "2.0" else None


def answers(message: JsonObject, rpc_id: jsonrpc.RpcId) -> bool:
    found = message.get("id")
    return "method" not in message and type(found) is type(rpc_id) and found == rpc_id


def whole(status: int, body: bytes, rpc_id: jsonrpc.RpcId) -> JsonObject:
    """The answer to a request that a body without a stream holds."""
    message = read(body)
    if message is not None and "method" not in message and ("result" in message or "error" in message):
        # Of a request that it could not read, the sidecar does not know the id.
        return message if answers(message, rpc_id) else {**message, "id": rpc_id}
    code, detail = _problem(body)
    return failure(rpc_id, code, detail or f"the sidecar answered {status} without a message")


def failure(rpc_id: jsonrpc.RpcId, code: str, detail: str) -> JsonObject:
    data: dict[str, Json] = {"code": code, "can_ask": False}
    return jsonrpc.error(rpc_id, DENIED, detail, data)


def unreachable(rpc_id: jsonrpc.RpcId, gateway: str) -> JsonObject:
    detail = f"the sidecar cannot be reached at {gateway}; nothing was sent"
    return failure(rpc_id, Code.UPSTREAM_UNREACHABLE, detail)


def broken(rpc_id: jsonrpc.RpcId) -> JsonObject:
    detail = "the sidecar broke off before the answer was whole; what the call did is not known"
    return failure(rpc_id, Code.OUTCOME_UNKNOWN, detail)


def _problem(body: bytes) -> tuple[str, str]:
    try:
        problem = json.loads(body)
    except (ValueError, RecursionError):
        problem = None
    found = problem if isinstance(problem, Mapping) else {}
    code, detail = found.get("code"), found.get("detail")
    return (
        code if isinstance(code, str) else Code.UPSTREAM_UNREACHABLE,
        detail[:_SHOWN] if isinstance(detail, str) else "",
    )


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
