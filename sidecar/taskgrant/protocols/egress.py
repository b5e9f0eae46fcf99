"""HTTP requests that are no tool calls: read as far as policy looks, and encoded anew from what was read.

Everything about a request is in what policy sees, or stays here: method, path, query, the usual headers and those that
the host is listed with, the names of a JSON body's members, and of some of them the values. What of a body policy does
not see, it has the name of. Secrets, such as the agent's own key for a model API, pass under their names.
"""

import re

from taskgrant.model.call import Head, Headers, Malformed, Outbound
from taskgrant.model.codes import Code
from taskgrant.model.egress import Body, EgressHost, EgressRequest
from taskgrant.model.ids import new_call_id
from taskgrant.model.json import JsonObject
from taskgrant.protocols import media, strictjson
from taskgrant.protocols.paths import (
    PathFault,
    join_path,
    join_query_pairs,
    split_path,
    split_query_pairs,
)
from taskgrant.protocols.websocket import is_upgrade

#: Headers that describe what is wanted, and no more.
USUAL = frozenset(
    {"accept", "accept-encoding", "accept-language", "cache-control", "content-type", "if-match",
     "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "pragma", "range", "user-agent"}
)  # fmt: skip
#: Headers that can never be listed: they are the framing's, the connection's, or name another server.
NEVER = frozenset(
    {"connection", "content-length", "expect", "forwarded", "host", "keep-alive", "proxy-authorization",
     "proxy-connection", "taskgrant-task", "te", "trailer", "transfer-encoding", "upgrade", "x-forwarded-for",
     "x-forwarded-host", "x-forwarded-proto", "x-http-method-override", "x-original-url", "x-rewrite-url"}
)  # fmt: skip
#: Headers of an answer that stay here: of the connection, or meant to be kept or followed around us.
DROPPED = frozenset(
    {"alt-svc", "connection", "keep-alive", "proxy-authenticate", "proxy-connection", "server", "set-cookie",
     "te", "trailer", "transfer-encoding", "upgrade"}
)  # fmt: skip
METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS"})
_SLASH = re.compile(r"%2f", re.IGNORECASE)


def parse(host: EgressHost, head: Head, body: bytes) -> EgressRequest | Malformed:
    """Never raises."""
    try:
        if head.method not in METHODS:
            return Malformed(Code.UNSUPPORTED, "this method is not passed on")
        if is_upgrade(head):
            return Malformed(Code.UNSUPPORTED, "the protocol of a connection cannot be changed")
        path, query = canonical_path(head.path), split_query_pairs(head.query)
        headers = _picked(head, USUAL | set(host.headers))
        secrets = _picked(head, frozenset(host.secrets))
        members = _members(host, head, body)
    except (PathFault, strictjson.JsonFault) as fault:
        return Malformed(Code.MALFORMED, str(fault))
    except media.BodyFault as fault:
        return Malformed(fault.code, str(fault))
    except _Fault as fault:
        return fault.malformed
    return EgressRequest(
        new_call_id(), host, head.method, path, query, headers, secrets,
        body if members is None else strictjson.encode(members),
        tuple(members or ()),
        {name: value for name, value in (members or {}).items() if name in host.visible},
    )  # fmt: skip


def encode(request: EgressRequest) -> Outbound:
    """The request to the host, from what was read only."""
    query = join_query_pairs(request.query)
    url = request.host.upstream.rstrip("/") + request.path + ("?" + query if query else "")
    return Outbound(request.method, url, request.headers + request.secrets, request.body)


def canonical_path(path: str) -> str:
    """The one form of a path. A slash at its end stays, and so does an escaped one between two proper names, which
    mirrors have (``/@scope%2Fpackage``). Raises PathFault for what servers may understand differently.
    """
    if path == "/":
        return path
    inner, slash = (path[:-1], "/") if path.endswith("/") else (path, "")
    if not inner.startswith("/"):
        raise PathFault("the path must begin with /")
    segments = ("%2F".join(map(_canonical, _SLASH.split(raw))) for raw in inner[1:].split("/"))
    return "/" + "/".join(segments) + slash


def _canonical(segment: str) -> str:
    if not segment:
        raise PathFault("the path has an empty segment")
    return join_path(split_path("/" + segment))[1:]


class _Fault(Exception):
    def __init__(self, code: Code, detail: str) -> None:
        self.malformed = Malformed(code, detail)


def _picked(head: Head, names: frozenset[str]) -> Headers:
    found: dict[str, str] = {}
    for name, value in head.headers:
        if name not in names:
            continue
        if name in found:
            raise _Fault(Code.MALFORMED, f"the header {name} appears twice")
        found[name] = value
    return tuple(found.items())


def _members(host: EgressHost, head: Head, body: bytes) -> JsonObject | None:
    """The body as an object; None where there is none, or it is not read."""
    unread = host.body is Body.ANY and "content-encoding" in host.headers
    if head.get("content-encoding") is not None and not unread:
        raise _Fault(Code.UNSUPPORTED, "bodies with a content encoding are not read")
    if not body:
        return None
    if head.method in _WITHOUT_BODY:
        raise _Fault(Code.MALFORMED, f"{head.method} takes no body")
    if host.body is Body.ANY:
        return None
    return media.json_object(head, body)
