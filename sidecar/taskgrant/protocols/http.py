"""Plain HTTP tools: an operation of the catalogue to a Call and back.

``POST /tickets/7/comments?notify=yes`` with ``{"text": "…"}`` is, for the operation ``POST /tickets/{id}/comments``
with the query parameter ``notify``, the tool's call with ``{"id": "7", "notify": "yes", "text": "…"}``. Path and query
values are strings; a name that comes from two places is refused.
"""

from collections.abc import Mapping
from types import MappingProxyType

from taskgrant.model.call import Answer, Call, Head, Kind, Malformed, Outbound, Refusal
from taskgrant.model.catalogue import Server
from taskgrant.model.codes import Code
from taskgrant.model.ids import new_call_id
from taskgrant.model.json import Json
from taskgrant.protocols import media, strictjson, websocket
from taskgrant.protocols.paths import PathFault, join_path, join_query, split_path, split_query
from taskgrant.protocols.routes import Route, RouteFault, Routes, compile_routes
from taskgrant.protocols.wording import outcome_unknown, sentence

PROTOCOL = "http"
ACTION = "http/request"
#: The member of ``Call.params`` that a call has which opens a WebSocket.
SUBPROTOCOLS = "subprotocols"
PROBLEM = "application/problem+json"

_JSON = ("content-type", "application/json")
_ACCEPT = ("accept", "application/json, */*;q=0.5")
_WITHOUT_BODY = frozenset({"GET", "HEAD"})
_DENIED = 403
_STATUS: Mapping[Code, int] = MappingProxyType(
    {
        Code.UNKNOWN_SERVER: 404,
        Code.UNKNOWN_OPERATION: 404,
        Code.MALFORMED: 400,
        Code.UNSUPPORTED: 415,
        Code.TOO_LARGE: 413,
        Code.MISDIRECTED: 421,
        Code.RATE_LIMITED: 429,
        Code.POLICY_ERROR: 503,
        Code.POLICY_UNAVAILABLE: 503,
        Code.AUTHORITY_UNAVAILABLE: 503,
        Code.AUDIT_UNAVAILABLE: 503,
        Code.OVERLOADED: 503,
        Code.CREDENTIAL_REFUSED: 502,
        Code.UPSTREAM_UNREACHABLE: 502,
        Code.OUTCOME_UNKNOWN: 504,
    }
)


class HttpCodec:
    """``ports.Codec`` for the operations of an HTTP server. Holds no state."""

    def parse(self, server: Server, head: Head, body: bytes) -> Call | Malformed:
        """Never raises."""
        try:
            return _parse(server, compile_routes(server.operations), head, body)
        except (PathFault, strictjson.JsonFault) as fault:
            return Malformed(Code.MALFORMED, str(fault))
        except RouteFault as fault:
            return Malformed(Code.UNKNOWN_OPERATION, str(fault))
        except media.BodyFault as fault:
            return Malformed(fault.code, str(fault))
        except _Fault as fault:
            return fault.malformed

    def encode(self, server: Server, call: Call) -> Outbound:
        """The request to the server, from the call's members only. KeyError when the catalogue has no such tool."""
        route = compile_routes(server.operations).by_tool[call.tool or ""]
        path = join_path(
            tuple(
                str(call.arguments[name]) if name is not None else literal or ""
                for literal, name in zip(route.segments, route.names, strict=True)
            )
        )
        query = join_query(
            [(name, str(call.arguments[name])) for name in route.operation.query if name in call.arguments]
        )
        outside = route.placeholders.union(route.operation.query)
        members = {name: value for name, value in call.arguments.items() if name not in outside}
        # An empty object is a body too: whether there was one is kept with the headers.
        with_body = bool(members) or _JSON in call.headers
        url = server.upstream.rstrip("/") + path + ("?" + query if query else "")
        return Outbound(
            route.operation.method,
            url,
            (_JSON, _ACCEPT) if with_body else (_ACCEPT,),
            strictjson.encode(members) if with_body else b"",
            offered(call),
        )

    def refuse(self, call: Call | Malformed, refusal: Refusal) -> Answer:
        """A problem document (RFC 9457) with our code, and whether it can be asked for."""
        unknown = outcome_unknown(refusal)
        status = _STATUS[Code.OUTCOME_UNKNOWN] if unknown else _STATUS.get(refusal.code, _DENIED)
        if isinstance(call, Malformed) and call.status is not None:
            status = call.status
        problem: dict[str, Json] = {
            "type": "about:blank",
            "title": "Outcome unknown" if unknown else "Refused",
            "status": status,
            "detail": sentence(f'"{call.tool}"' if isinstance(call, Call) else "The request", refusal),
            "code": refusal.code,
            "can_ask": refusal.can_ask,
        }
        return Answer(status, PROBLEM, strictjson.encode(problem))


class _Fault(Exception):
    def __init__(self, code: Code, detail: str, status: int | None = None) -> None:
        self.malformed = Malformed(code, detail, status=status)


def _parse(server: Server, routes: Routes, head: Head, body: bytes) -> Call:
    found = routes.find(head.method, split_path(head.path))
    if found is None:
        raise _Fault(Code.UNKNOWN_OPERATION, "the catalogue has no such operation for this server")
    route, values = found
    subprotocols = _subprotocols(head, route)
    arguments: dict[str, Json] = dict(values)
    for name, text in split_query(head.query).items():
        if name not in route.operation.query:
            raise _Fault(Code.MALFORMED, f"the query parameter {name[:64]!r} is not part of this operation")
        arguments[name] = text
    members = _members(head, route, body)
    outside = {strictjson.fold(name) for name in (*route.placeholders, *route.operation.query)}
    for member in members or ():
        if strictjson.fold(member) in outside:
            raise _Fault(Code.MALFORMED, f"the member {member[:64]!r} belongs in the path or query")
    arguments.update(members or {})
    return Call(
        new_call_id(),
        PROTOCOL,
        server.name,
        ACTION,
        Kind.TOOL,
        route.operation.tool,
        arguments,
        params={} if subprotocols is None else {SUBPROTOCOLS: list(subprotocols)},
        headers=(_JSON,) if members is not None else (),
    )


def offered(call: Call) -> tuple[str, ...] | None:
    """The subprotocols that a call offers which opens a WebSocket; None for every other call."""
    names = call.params.get(SUBPROTOCOLS)
    return tuple(map(str, names)) if isinstance(names, list) else None


def _subprotocols(head: Head, route: Route) -> tuple[str, ...] | None:
    """What a WebSocket is offered with; None for what opens none. An operation is the one or the other."""
    if not websocket.is_upgrade(head):
        if route.operation.websocket:
            raise _Fault(Code.UNSUPPORTED, "this operation opens a WebSocket (RFC 6455)", 400)
        return None
    if not route.operation.websocket:
        raise _Fault(Code.UNSUPPORTED, "this operation opens no WebSocket", 400)
    try:
        return websocket.read_opening(head)
    except websocket.HandshakeFault as fault:
        raise _Fault(Code.MALFORMED, str(fault), 400) from fault


def _members(head: Head, route: Route, body: bytes) -> dict[str, Json] | None:
    """The members of the body; None without a body."""
    if head.count("content-type") > 1 or head.count("content-encoding") > 1:
        raise _Fault(Code.MALFORMED, "a header that describes the body appears twice")
    if not body:
        if head.get("content-encoding") is not None:
            raise _Fault(Code.UNSUPPORTED, "bodies with a content encoding are not read")
        return None
    if route.operation.method in _WITHOUT_BODY:
        raise _Fault(Code.MALFORMED, f"{route.operation.method} takes no body")
    return media.json_object(head, body)
