"""What each MCP method is to us, and every member of its params that may pass. What is not in this table is refused.

``arguments`` are what a grant constrains; ``params`` are the members beside them, which policy sees too. ``named`` is
the member that names the thing, mirrored by the ``Mcp-Name`` header from 2026-07-28 on. ``_meta`` is allowed
everywhere. Methods beside ``tools/call`` that consume a use appear in grants as the tool ``mcp:<method>``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Flag, auto
from functools import lru_cache
from types import MappingProxyType

from taskgrant.model.call import Kind
from taskgrant.model.catalogue import MCP_VERSIONS, MODERN_MCP_VERSION, Server

TOOLS_CALL = "tools/call"
INITIALIZE = "initialize"
DISCOVER = "server/discover"
LISTEN = "subscriptions/listen"
#: The action of a call that is no JSON-RPC request of the client.
GET = "GET"
DELETE = "DELETE"
RESPONSE = "response"

PSEUDO_TOOL_PREFIX = "mcp:"
LEGACY_VERSIONS = tuple(version for version in MCP_VERSIONS if version < MODERN_MCP_VERSION)
#: What a client that sends no version header speaks (streamable HTTP, "Protocol Version Header").
UNSTATED_VERSION = "2025-03-26"


class Era(Flag):
    LEGACY = auto()
    MODERN = auto()
    BOTH = LEGACY | MODERN


@dataclass(frozen=True, slots=True)
class Method:
    kind: Kind
    arguments: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    named: str | None = None
    eras: Era = Era.BOTH


_RETRY = (
    "inputResponses",
    "requestState",
)  # multi round-trip requests: the client's answers, sent again with the call
_PAGE = ("cursor",)

REQUESTS: Mapping[str, Method] = MappingProxyType(
    {
        TOOLS_CALL: Method(Kind.TOOL, (), ("task", *_RETRY), ("name",), "name"),
        "resources/read": Method(Kind.TOOL, ("uri",), _RETRY, ("uri",), "uri"),
        "prompts/get": Method(Kind.TOOL, ("name", "arguments"), _RETRY, ("name",), "name"),
        "completion/complete": Method(Kind.TOOL, ("ref", "argument", "context"), (), ("ref", "argument")),
        "resources/subscribe": Method(Kind.TOOL, ("uri",), (), ("uri",), eras=Era.LEGACY),
        "resources/unsubscribe": Method(Kind.TOOL, ("uri",), (), ("uri",), eras=Era.LEGACY),
        "logging/setLevel": Method(Kind.TOOL, ("level",), (), ("level",), eras=Era.LEGACY),
        "tasks/get": Method(Kind.TOOL, ("taskId",), (), ("taskId",), "taskId"),
        "tasks/cancel": Method(Kind.TOOL, ("taskId",), (), ("taskId",), "taskId"),
        "tasks/result": Method(Kind.TOOL, ("taskId",), (), ("taskId",), "taskId", Era.LEGACY),
        "tasks/update": Method(
            Kind.TOOL, ("taskId",), _RETRY, ("taskId", "inputResponses"), "taskId", Era.MODERN
        ),
        "tools/list": Method(Kind.LIST, (), _PAGE),
        "prompts/list": Method(Kind.LIST, (), _PAGE),
        "resources/list": Method(Kind.LIST, (), _PAGE),
        "resources/templates/list": Method(Kind.LIST, (), _PAGE),
        INITIALIZE: Method(
            Kind.SESSION,
            (),
            ("protocolVersion", "capabilities", "clientInfo"),
            ("protocolVersion",),
            eras=Era.LEGACY,
        ),
        "ping": Method(Kind.SESSION, eras=Era.LEGACY),
        DISCOVER: Method(Kind.SESSION, eras=Era.MODERN),
        LISTEN: Method(Kind.STREAM, (), ("notifications",), ("notifications",), eras=Era.MODERN),
    }
)

NOTIFICATIONS: Mapping[str, Method] = MappingProxyType(
    {
        "notifications/initialized": Method(Kind.NOTICE, eras=Era.LEGACY),
        "notifications/cancelled": Method(Kind.NOTICE, (), ("requestId", "reason")),
        "notifications/progress": Method(
            Kind.NOTICE,
            (),
            ("progressToken", "progress", "total", "message"),
            ("progressToken", "progress"),
            eras=Era.LEGACY,
        ),
        "notifications/roots/list_changed": Method(Kind.NOTICE, eras=Era.LEGACY),
    }
)

#: The JSON types of the members, by name: ``type()`` exactly, so that a boolean is no integer.
TYPES: Mapping[str, tuple[type, ...]] = MappingProxyType(
    {
        "name": (str,),
        "uri": (str,),
        "cursor": (str,),
        "level": (str,),
        "taskId": (str,),
        "requestState": (str,),
        "protocolVersion": (str,),
        "reason": (str,),
        "message": (str,),
        "arguments": (dict,),
        "ref": (dict,),
        "argument": (dict,),
        "context": (dict,),
        "inputResponses": (dict,),
        "task": (dict,),
        "notifications": (dict,),
        "capabilities": (dict,),
        "clientInfo": (dict,),
        "_meta": (dict,),
        "requestId": (str, int),
        "progressToken": (str, int),
        "progress": (int, float),
        "total": (int, float),
    }
)


def spoken(server: Server) -> tuple[str, ...]:
    """The revisions that we serve for this server, oldest first. One that has not said so is taken to be of old."""
    return _served(server.versions)


@lru_cache(maxsize=64)
def _served(versions: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(version for version in MCP_VERSIONS if version in versions) if versions else LEGACY_VERSIONS


def is_modern(version: str) -> bool:
    """Whether the revision has no sessions, and its metadata in every request (2026-07-28)."""
    return version == MODERN_MCP_VERSION


def negotiate(server: Server, requested: str) -> str | None:
    """The revision to answer ``initialize`` with: the one asked for, else the newest with sessions, else None."""
    legacy = [version for version in spoken(server) if not is_modern(version)]
    if requested in legacy:
        return requested
    return legacy[-1] if legacy else None
