"""MCP over streamable HTTP: a request to a Call, a Call to the request that goes on, a refusal to an answer.

The request that goes on is built from the Call alone. What the table in ``methods`` does not list is refused, and so is
whatever two readers could understand differently: headers that say something other than the body, a body in another
encoding, a batch, a query string.
"""

from taskgrant.model.call import Answer, Call, Head, Kind, Malformed, Outbound, Refusal
from taskgrant.model.catalogue import MODERN_MCP_VERSION, Server
from taskgrant.model.codes import Code
from taskgrant.model.ids import new_call_id
from taskgrant.model.json import Json, JsonObject
from taskgrant.protocols import jsonrpc, media, strictjson
from taskgrant.protocols.mcp import headers, members, refusals
from taskgrant.protocols.mcp.methods import (
    DELETE,
    DISCOVER,
    GET,
    INITIALIZE,
    NOTIFICATIONS,
    PSEUDO_TOOL_PREFIX,
    REQUESTS,
    RESPONSE,
    TOOLS_CALL,
    UNSTATED_VERSION,
    Era,
    is_modern,
    negotiate,
    spoken,
)
from taskgrant.protocols.websocket import is_upgrade

PROTOCOL = "mcp"
HEADER_MISMATCH = -32020
UNSUPPORTED_VERSION = -32022
VERSION_META = "io.modelcontextprotocol/protocolVersion"

_ACCEPT_POST = ("accept", "application/json, text/event-stream")
_CONTENT_TYPE = ("content-type", "application/json")


class McpCodec:
    """``ports.Codec`` for MCP. Holds no state."""

    def parse(self, server: Server, head: Head, body: bytes) -> Call | Malformed:
        """Never raises. A request that is refused here has asked nobody anything."""
        try:
            return _parse(server, head, body)
        except _Fault as fault:
            return fault.malformed
        except headers.HeaderFault as fault:
            return Malformed(Code.MALFORMED, str(fault), rpc_error=HEADER_MISMATCH, status=400)

    def encode(self, server: Server, call: Call) -> Outbound:
        """The request to the server, from the call's members only. Others add the upstream session's header."""
        version = (headers.VERSION, call.version)
        if call.kind is Kind.STREAM and call.action == GET:
            return Outbound(GET, server.upstream, (("accept", "text/event-stream"), version), b"")
        if call.action == DELETE:
            return Outbound(DELETE, server.upstream, (version,), b"")
        message = _message(call)
        sent = [_CONTENT_TYPE, _ACCEPT_POST, version]
        if is_modern(call.version):
            sent.append((headers.METHOD, call.action))
            if (name := _name(call)) is not None:
                sent.append((headers.NAME, headers.encode_value(name)))
        return Outbound("POST", server.upstream, (*sent, *call.headers), strictjson.encode(message))

    def refuse(self, call: Call | Malformed, refusal: Refusal) -> Answer:
        return refusals.refuse(call, refusal)

    def refuse_event(self, call: Call, refusal: Refusal) -> bytes:
        """The refusal as one event, for a stream that has begun."""
        return refusals.refuse_event(call, refusal)


class _Fault(Exception):
    def __init__(
        self,
        code: Code,
        detail: str,
        rpc_error: int = jsonrpc.INVALID_REQUEST,
        *,
        rpc_id: str | int | None = None,
        rpc_data: JsonObject | None = None,
        status: int = 400,
    ) -> None:
        self.malformed = Malformed(code, detail, rpc_id, rpc_error, rpc_data, status)


def _parse(server: Server, head: Head, body: bytes) -> Call:
    if is_upgrade(head):
        raise _Fault(Code.UNSUPPORTED, "an MCP endpoint opens no WebSocket")
    if head.query:
        raise _Fault(Code.MALFORMED, "an MCP endpoint takes no query string")
    found = headers.read(head)
    if head.method in (GET, DELETE):
        return _parse_bodiless(server, head, found, body)
    if head.method != "POST":
        raise _Fault(
            Code.UNSUPPORTED, f"the method {head.method[:16]} is not part of this protocol", status=405
        )
    if (fault := media.json_fault(found)) is not None:
        raise _Fault(Code.UNSUPPORTED, fault, status=415)
    try:
        message = jsonrpc.read(strictjson.decode(body))
    except jsonrpc.RpcFault as error:
        code = Code.UNSUPPORTED if error.batch else Code.MALFORMED
        raise _Fault(code, str(error), rpc_id=error.id) from None
    except strictjson.JsonFault as error:
        raise _Fault(Code.MALFORMED, str(error), jsonrpc.PARSE_ERROR) from None
    if isinstance(message, jsonrpc.Response):
        return _parse_response(server, found, message)
    return _parse_method(server, found, message)


def _parse_bodiless(server: Server, head: Head, found: dict[str, str], body: bytes) -> Call:
    if body:
        raise _Fault(Code.MALFORMED, f"{head.method} takes no body")
    version = _version(server, found, None, None)
    if is_modern(version):
        raise _Fault(
            Code.UNSUPPORTED, f"{head.method} is not part of this revision of the protocol", status=405
        )
    if head.method == GET:
        if not media.accepts(found.get("accept", ""), "text/event-stream"):
            raise _Fault(Code.UNSUPPORTED, "a stream is opened with Accept: text/event-stream", status=406)
        return _call(server, GET, Kind.STREAM, version, found)
    return _call(server, DELETE, Kind.NOTICE, version, found)


def _parse_response(server: Server, found: dict[str, str], message: jsonrpc.Response) -> Call:
    version = _version(server, found, None, message.id)
    if is_modern(version):
        raise _Fault(Code.MALFORMED, "this revision of the protocol has no responses from clients")
    if headers.METHOD in found or headers.NAME in found:
        raise headers.HeaderFault("a response has neither a method nor a name")
    headers.params(found, {}, allowed=False)
    outcome: dict[str, Json] = (
        {"error": message.error} if message.error is not None else {"result": message.result}
    )
    return _call(server, RESPONSE, Kind.ANSWER, version, found, params=outcome, rpc_id=message.id)


def _parse_method(
    server: Server, found: dict[str, str], message: jsonrpc.Request | jsonrpc.Notification
) -> Call:
    action, params = message.method, message.params
    rpc_id = message.id if isinstance(message, jsonrpc.Request) else None
    meta = params.get("_meta", {})
    if not isinstance(meta, dict):
        raise _Fault(
            Code.MALFORMED, 'the member "_meta" must be an object', jsonrpc.INVALID_PARAMS, rpc_id=rpc_id
        )
    stated = meta.get(VERSION_META)
    if action == INITIALIZE:
        # The handshake says in its body what the client would like; the answer settles it.
        version = _negotiated(server, params.get("protocolVersion"), rpc_id)
    else:
        version = _version(server, found, stated, rpc_id, action)
    modern = is_modern(version)
    method = (NOTIFICATIONS if rpc_id is None else REQUESTS).get(action)
    if method is None or (Era.MODERN if modern else Era.LEGACY) not in method.eras:
        raise _Fault(
            Code.UNKNOWN_OPERATION,
            f"the method {action!r} is not known in this revision of the protocol",
            jsonrpc.METHOD_NOT_FOUND,
            rpc_id=rpc_id,
            status=_status_unknown(rpc_id, modern),
        )
    name = params.get(method.named) if method.named is not None else None
    try:
        headers.check(
            found,
            method=action,
            name=name if isinstance(name, str) else None,
            need_method=modern and rpc_id is not None,
            need_name=modern and method.named is not None,
        )
        if modern and rpc_id is not None and stated is None:
            raise _Fault(Code.MALFORMED, f"_meta lacks {VERSION_META}", jsonrpc.INVALID_PARAMS, rpc_id=rpc_id)
        members.check(params, method, tool=action == TOOLS_CALL)
        arguments = members.pick(params, method.arguments)
        tool = None
        if action == TOOLS_CALL:
            tool = str(params["name"])
            given = params.get("arguments")
            arguments = given if isinstance(given, dict) else {}
        elif method.kind is Kind.TOOL:
            tool = PSEUDO_TOOL_PREFIX + action
        mirrored = headers.params(found, arguments, allowed=modern and action == TOOLS_CALL)
    except headers.HeaderFault as fault:
        raise _Fault(Code.MALFORMED, str(fault), HEADER_MISMATCH, rpc_id=rpc_id) from None
    except members.MembersFault as fault:
        raise _Fault(Code.MALFORMED, str(fault), jsonrpc.INVALID_PARAMS, rpc_id=rpc_id) from None
    return Call(
        new_call_id(),
        PROTOCOL,
        server.name,
        action,
        method.kind,
        tool,
        arguments,
        meta,
        members.pick(params, method.params),
        rpc_id,
        version,
        None if modern else headers.session(found),
        mirrored,
    )


def _version(
    server: Server,
    found: dict[str, str],
    stated: Json,
    rpc_id: str | int | None,
    action: str | None = None,
) -> str:
    """The revision that the request speaks: one that we serve for this server, and the same in header and body."""
    sent = found.get(headers.VERSION)
    if stated is not None and stated != sent:
        raise _Fault(
            Code.MALFORMED,
            "the header MCP-Protocol-Version does not match the version in the body",
            HEADER_MISMATCH,
            rpc_id=rpc_id,
        )
    if action == DISCOVER and sent == MODERN_MCP_VERSION:
        return sent  # asked to find out, also of a server of old
    if sent is None:
        return _negotiated(server, UNSTATED_VERSION, rpc_id)
    if sent in spoken(server):
        return sent
    raise _unsupported(server, sent, rpc_id)


def _negotiated(server: Server, requested: Json, rpc_id: str | int | None) -> str:
    wish = requested if isinstance(requested, str) else ""
    version = negotiate(server, wish)
    if version is None:
        raise _unsupported(server, wish, rpc_id)
    return version


def _unsupported(server: Server, requested: str, rpc_id: str | int | None) -> "_Fault":
    return _Fault(
        Code.UNSUPPORTED,
        "the protocol version is not supported for this server",
        UNSUPPORTED_VERSION,
        rpc_id=rpc_id,
        rpc_data={"supported": list(spoken(server)), "requested": requested[:64]},
    )


def _status_unknown(rpc_id: str | int | None, modern: bool) -> int:
    if rpc_id is None:
        return 400
    return 404 if modern else 200


def _call(
    server: Server,
    action: str,
    kind: Kind,
    version: str,
    found: dict[str, str],
    params: JsonObject | None = None,
    rpc_id: str | int | None = None,
) -> Call:
    return Call(
        new_call_id(),
        PROTOCOL,
        server.name,
        action,
        kind,
        params=params or {},
        rpc_id=rpc_id,
        version=version,
        session=headers.session(found),
    )


def _message(call: Call) -> dict[str, Json]:
    if call.action == RESPONSE:
        return {"jsonrpc": "2.0", "id": call.rpc_id, **call.params}
    params: dict[str, Json] = {}
    if call.action == TOOLS_CALL:
        params["name"] = call.tool
        params["arguments"] = call.arguments
    else:
        params.update(call.arguments)
    params.update(call.params)
    if call.meta:
        params["_meta"] = call.meta
    return jsonrpc.message(call.action, params, call.rpc_id)


def _name(call: Call) -> str | None:
    if call.action == TOOLS_CALL:
        return call.tool
    method = REQUESTS.get(call.action)
    if method is None or method.named is None:
        return None
    return str(call.arguments[method.named])
