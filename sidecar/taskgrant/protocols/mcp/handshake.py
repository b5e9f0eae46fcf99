"""The sidecar's own session with a server of old: ``initialize`` → result → ``notifications/initialized`` … DELETE."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from taskgrant.model.call import Outbound
from taskgrant.model.catalogue import Server
from taskgrant.model.json import Json, JsonObject
from taskgrant.protocols import jsonrpc, strictjson
from taskgrant.protocols.mcp import headers
from taskgrant.protocols.mcp.methods import LEGACY_VERSIONS

HANDSHAKE_ID = "taskgrant-initialize"

_NOTHING: JsonObject = MappingProxyType({})
#: What a client can be asked for, and the marks beneath it; everything else that it says of itself stays here.
_CAPABILITIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"roots": ("listChanged",), "sampling": ("context", "tools"), "elicitation": ("form", "url")}
)
_BODY = (("content-type", "application/json"), ("accept", "application/json, text/event-stream"))


class HandshakeFault(ValueError):
    """The server's answer opens no session that we can use."""


@dataclass(frozen=True, slots=True)
class Handshake:
    """What the server said of itself: the revision that it chose, its capabilities, its name and version."""

    version: str
    capabilities: JsonObject
    server_info: JsonObject


def client_capabilities(stated: Json) -> JsonObject:
    """Of the capabilities that a client states in ``initialize``, those that a server may rely on, as marks only."""
    kept: dict[str, Json] = {}
    for name, marks in _CAPABILITIES.items():
        value = stated.get(name) if isinstance(stated, Mapping) else None
        if isinstance(value, Mapping):
            kept[name] = {mark: True if value[mark] is True else {} for mark in marks if mark in value}
    return kept


def initialize_request(
    server: Server, version: str, capabilities: JsonObject = _NOTHING, client_version: str = "0"
) -> Outbound:
    """``capabilities`` (from ``client_capabilities``) tell the server what it may ask the client for."""
    params: JsonObject = {
        "protocolVersion": version,
        "capabilities": dict(capabilities),
        "clientInfo": {"name": "taskgrant", "version": client_version},
    }
    body = jsonrpc.message("initialize", params, HANDSHAKE_ID)
    return Outbound("POST", server.upstream, _BODY, strictjson.encode(body))


def read_initialize(message: JsonObject) -> Handshake:
    """The decoded response. Raises HandshakeFault for an error, another id, or a revision that we do not speak."""
    outcome = message.get("result")
    if message.get("id") != HANDSHAKE_ID or not isinstance(outcome, Mapping):
        raise HandshakeFault("the server did not answer initialize with a result")
    version, capabilities = outcome.get("protocolVersion"), outcome.get("capabilities")
    info = outcome.get("serverInfo")
    if not isinstance(version, str) or version not in LEGACY_VERSIONS:
        raise HandshakeFault("the server chose a protocol version that we do not speak")
    if not isinstance(capabilities, Mapping) or not isinstance(info, Mapping):
        raise HandshakeFault("the server's answer to initialize lacks capabilities or serverInfo")
    return Handshake(version, capabilities, info)


def initialized_notification(server: Server, version: str, session: str | None) -> Outbound:
    body = jsonrpc.message("notifications/initialized", {})
    sent = (*_BODY, *_session(version, session))
    return Outbound("POST", server.upstream, sent, strictjson.encode(body))


def end_session(server: Server, version: str, session: str) -> Outbound:
    return Outbound("DELETE", server.upstream, _session(version, session), b"")


def _session(version: str, session: str | None) -> tuple[tuple[str, str], ...]:
    stated = (headers.VERSION, version)
    return (stated,) if session is None else (stated, (headers.SESSION, session))
