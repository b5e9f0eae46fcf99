"""One line of the client as the request that carries it over streamable HTTP. Pure.

The line goes on byte by byte: the gateway judges what the client has written, not what we make of it. It is read here
for the headers that have to agree with it (MCP 2026-07-28: ``Mcp-Method``, ``Mcp-Name``), and what cannot be read in
one way only is answered here::

    line → Outgoing(message, headers, body)          or  BadLine, with the answer that the client gets
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from taskgrant.model.json import Json
from taskgrant.protocols import jsonrpc, strictjson
from taskgrant.protocols.mcp import headers
from taskgrant.protocols.mcp.codec import VERSION_META
from taskgrant.protocols.mcp.methods import REQUESTS, is_modern

Message = jsonrpc.Request | jsonrpc.Notification | jsonrpc.Response

_POST = (("content-type", "application/json"), ("accept", "application/json, text/event-stream"))


class BadLine(ValueError):
    """The line is no message. ``answer`` is the JSON-RPC error for it."""

    def __init__(self, detail: str, answer: Mapping[str, Json]) -> None:
        super().__init__(detail)
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Outgoing:
    message: Message
    headers: dict[str, str]
    body: bytes
    modern: bool  # speaks the revision without sessions

    @property
    def id(self) -> jsonrpc.RpcId | None:
        """Of a request: what its answer has to name."""
        return self.message.id if isinstance(self.message, jsonrpc.Request) else None


def read(line: bytes, version: str) -> Outgoing:
    """``version`` is the revision that was agreed on in a handshake, empty before one. Raises BadLine."""
    try:
        message = jsonrpc.read(strictjson.decode(line))
    except strictjson.JsonFault as fault:
        raise _bad(jsonrpc.PARSE_ERROR, str(fault), _id(line)) from None
    except jsonrpc.RpcFault as fault:
        raise _bad(jsonrpc.INVALID_REQUEST, str(fault), fault.id) from None
    sent = dict(_POST)
    stated = _stated(message)
    modern = stated is not None and is_modern(stated)
    if (spoken := stated or version) and spoken.isascii() and spoken.isprintable():
        sent[headers.VERSION] = spoken
    if modern and not isinstance(message, jsonrpc.Response):
        sent[headers.METHOD] = headers.encode_value(message.method)
        method = REQUESTS.get(message.method)
        name = message.params.get(method.named) if method is not None and method.named is not None else None
        if isinstance(name, str):
            sent[headers.NAME] = headers.encode_value(name)
    return Outgoing(message, sent, line, modern)


def too_long(limit: int) -> BadLine:
    return _bad(jsonrpc.INVALID_REQUEST, f"a message of more than {limit} bytes", None)


def _bad(code: int, detail: str, rpc_id: jsonrpc.RpcId | None) -> BadLine:
    return BadLine(detail, jsonrpc.error(rpc_id, code, detail))


def _stated(message: Message) -> str | None:
    if isinstance(message, jsonrpc.Response):
        return None
    meta = message.params.get("_meta")
    stated = meta.get(VERSION_META) if isinstance(meta, Mapping) else None
    return stated if isinstance(stated, str) else None


def _id(line: bytes) -> jsonrpc.RpcId | None:
    """The id that a client waits for, where a more lenient reader finds one."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    found = value.get("id") if isinstance(value, dict) and "method" in value else None
    return found if type(found) is str or type(found) is int else None
