"""JSON-RPC 2.0 as MCP narrows it: one message, no batches, no null ids, params by name, and no other members.

::

    {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {…}}        Request
    {"jsonrpc": "2.0", "method": "notifications/initialized"}                 Notification
    {"jsonrpc": "2.0", "id": 1, "result": {…}}  or  {…, "error": {…}}         Response
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from taskgrant.model.json import Json, JsonObject

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602

MAX_ID_LENGTH = 256
MAX_METHOD_LENGTH = 128
#: Integers that every JSON reader keeps exact.
MAX_INTEGER = 2**53

RpcId: TypeAlias = str | int

_REQUEST = frozenset({"jsonrpc", "id", "method", "params"})
_RESPONSE = frozenset({"jsonrpc", "id", "result", "error"})
_ERROR = frozenset({"code", "message", "data"})
_NO_PARAMS: dict[str, Json] = {}


@dataclass(frozen=True, slots=True)
class Request:
    id: RpcId
    method: str
    params: JsonObject


@dataclass(frozen=True, slots=True)
class Notification:
    method: str
    params: JsonObject


@dataclass(frozen=True, slots=True)
class Response:
    """Exactly one of ``result`` and ``error`` is there."""

    id: RpcId
    result: JsonObject | None
    error: JsonObject | None


class RpcFault(ValueError):
    """The value is no JSON-RPC message. ``id`` is the request's, when it could be read."""

    def __init__(self, detail: str, *, id: RpcId | None = None, batch: bool = False) -> None:
        super().__init__(detail)
        self.id = id
        self.batch = batch


def read(value: Json) -> Request | Notification | Response:
    """The message that a decoded value is. Raises RpcFault."""
    if isinstance(value, list):
        raise RpcFault("batches are not supported: send one message per request", batch=True)
    if not isinstance(value, dict):
        raise RpcFault("a message is a JSON object")
    rpc_id = _read_id(value)
    if value.get("jsonrpc") != "2.0":
        raise RpcFault('the member "jsonrpc" must be "2.0"', id=rpc_id)
    if "method" in value:
        return _read_request(value, rpc_id)
    return _read_response(value, rpc_id)


def result(rpc_id: RpcId | None, value: JsonObject) -> dict[str, Json]:
    return {"jsonrpc": "2.0", "id": rpc_id, "result": value}


def error(rpc_id: RpcId | None, code: int, message: str, data: JsonObject | None = None) -> dict[str, Json]:
    """An error response. Without an id it is about no request in particular: MCP leaves the member out then."""
    fault: dict[str, Json] = {"code": code, "message": message}
    if data is not None:
        fault["data"] = data
    if rpc_id is None:
        return {"jsonrpc": "2.0", "error": fault}
    return {"jsonrpc": "2.0", "id": rpc_id, "error": fault}


def message(method: str, params: JsonObject, rpc_id: RpcId | None = None) -> dict[str, Json]:
    """A request, or without an id a notification. Empty params are left out."""
    body: dict[str, Json] = {"jsonrpc": "2.0"}
    if rpc_id is not None:
        body["id"] = rpc_id
    body["method"] = method
    if params:
        body["params"] = params
    return body


def _read_id(value: dict[str, Json]) -> RpcId | None:
    if "id" not in value:
        return None
    rpc_id = value["id"]
    if type(rpc_id) is int and -MAX_INTEGER <= rpc_id <= MAX_INTEGER:
        return rpc_id
    if type(rpc_id) is str and len(rpc_id) <= MAX_ID_LENGTH:
        return rpc_id
    raise RpcFault(
        f'the member "id" must be a string of at most {MAX_ID_LENGTH} characters or an integer within 2^53'
    )


def _read_request(value: dict[str, Json], rpc_id: RpcId | None) -> Request | Notification:
    if not value.keys() <= _REQUEST:
        raise RpcFault(f"unknown member {_stranger(value, _REQUEST)} in the message", id=rpc_id)
    method = value["method"]
    if type(method) is not str or not 0 < len(method) <= MAX_METHOD_LENGTH or not method.isprintable():
        raise RpcFault('the member "method" must be a short string', id=rpc_id)
    params = value.get("params", _NO_PARAMS)
    if not isinstance(params, dict):
        raise RpcFault('the member "params" must be an object', id=rpc_id)
    if rpc_id is None:
        return Notification(method, params)
    return Request(rpc_id, method, params)


def _read_response(value: dict[str, Json], rpc_id: RpcId | None) -> Response:
    if not value.keys() <= _RESPONSE:
        raise RpcFault(f"unknown member {_stranger(value, _RESPONSE)} in the message", id=rpc_id)
    if rpc_id is None:
        raise RpcFault("a message has a method, or the id of the request that it answers")
    if ("result" in value) == ("error" in value):
        raise RpcFault("a response has either a result or an error")
    if "result" in value:
        outcome = value["result"]
        if not isinstance(outcome, dict):
            raise RpcFault('the member "result" must be an object')
        return Response(rpc_id, outcome, None)
    fault = value["error"]
    if (
        not isinstance(fault, dict)
        or type(fault.get("code")) is not int
        or type(fault.get("message")) is not str
        or not fault.keys() <= _ERROR
    ):
        raise RpcFault('the member "error" must have a code, a message and at most data')
    return Response(rpc_id, None, fault)


def _stranger(value: Mapping[str, Json], known: frozenset[str]) -> str:
    return repr(min(value.keys() - known)[:64])
