"""Requests as a client sends them, for a server that speaks both eras."""

import json
from typing import Any

from taskgrant.model.call import Answer, Call, Head, Malformed, Outbound
from taskgrant.model.catalogue import MCP_VERSIONS, Server, ServerProtocol
from taskgrant.protocols.mcp.codec import McpCodec

MODERN, LEGACY = "2026-07-28", "2025-11-25"
SERVER = Server("mail", ServerProtocol.MCP, "https://mail.example/mcp", versions=MCP_VERSIONS)
OLD_SERVER = Server("mail", ServerProtocol.MCP, "https://mail.example/mcp")
CODEC = McpCodec()
JSON_TYPE = ("content-type", "application/json")
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
}


def head(*headers: tuple[str, str], method: str = "POST", query: str = "") -> Head:
    return Head(method, "/mcp", query, (("host", "mail.example"), *headers))


def legacy(body: object, *headers: tuple[str, str], server: Server = SERVER) -> Call | Malformed:
    """A request of 2025-11-25 with its version header."""
    sent = head(JSON_TYPE, ("mcp-protocol-version", LEGACY), *headers)
    return CODEC.parse(server, sent, json.dumps(body).encode())


def modern(
    method: str, params: dict[str, Any], *headers: tuple[str, str], name: str | None = None
) -> Call | Malformed:
    """A request of 2026-07-28 with the headers that it needs."""
    body = request(method, {**params, "_meta": META})
    sent = [JSON_TYPE, ("mcp-protocol-version", MODERN), ("mcp-method", method)]
    if name is not None:
        sent.append(("mcp-name", name))
    return CODEC.parse(SERVER, head(*sent, *headers), json.dumps(body).encode())


def request(method: str, params: dict[str, Any] | None = None, rpc_id: Any = 1) -> dict[str, Any]:
    body = {"jsonrpc": "2.0", "id": rpc_id, "method": method}
    return body if params is None else {**body, "params": params}


def call(parsed: Call | Malformed) -> Call:
    assert isinstance(parsed, Call), parsed
    return parsed


def malformed(parsed: Call | Malformed) -> Malformed:
    assert isinstance(parsed, Malformed), parsed
    return parsed


def body_of(sent: Outbound | Answer) -> Any:
    return json.loads(sent.body)


def again(sent: Outbound, server: Server = SERVER) -> Call | Malformed:
    """What the tool server would understand of what is forwarded."""
    return CODEC.parse(server, Head(sent.method, "/mcp", "", sent.headers), sent.body)
