"""A tool server with one of everything that the protocol has, made of the ``mcp`` package's own parts.

    python workshop_server.py workshop|library SOCKET JOURNAL

``workshop`` has tools that report progress, log, ask the client back and take their time, a resource, a prompt;
``library`` has many tools, listed page by page. It knows nothing of taskgrant. What reaches it is in the journal.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import mcp_types as types
import uvicorn
from mcp.server import MCPServer, Server
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.resolve import Elicit, Resolve
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import BaseModel
from starlette.applications import Starlette

PAGE = 10
BOOKS = 25


class Colour(BaseModel):
    colour: str


async def ask_colour() -> Elicit[Colour]:
    return Elicit("Which colour?", Colour)


def workshop(journal: Path) -> MCPServer:
    server = MCPServer("workshop", version="3.1", log_level="ERROR")

    def note(tool: str, **seen: object) -> None:
        with journal.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"tool": tool, **seen}) + "\n")

    @server.tool()
    def add(a: int, b: int) -> int:
        note("add", a=a, b=b)
        return a + b

    @server.tool()
    def fail(why: str) -> str:
        note("fail")
        raise ValueError(why)

    @server.tool()
    async def count(to: int, context: Context) -> str:
        note("count")
        for number in range(1, to + 1):
            await context.report_progress(number, to, f"{number} of {to}")
        return f"counted to {to}"

    @server.tool()
    async def chat(text: str, context: Context) -> str:
        note("chat")
        await context.log("warning", text)
        return "said"

    @server.tool()
    async def wait(seconds: float, context: Context) -> str:
        note("wait", state="begun")
        await context.report_progress(1, 2, "begun")
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            note("wait", state="cancelled")
            raise
        note("wait", state="finished")
        return "waited"

    @server.tool()
    async def paint(what: str, colour: Annotated[Colour, Resolve(ask_colour)]) -> str:
        note("paint", what=what, colour=colour.colour)
        return f"{what} is {colour.colour}"

    @server.tool()
    async def announce(uri: str, context: Context) -> str:
        """Tells on the server's own stream, outside of any call."""
        note("announce")
        await context.session.send_resource_updated(uri)
        return "announced"

    @server.resource("shelf://one")
    def one() -> str:
        note("resource", uri="shelf://one")
        return "the first thing"

    @server.resource("shelf://two")
    def two() -> str:
        note("resource", uri="shelf://two")
        return "the second thing"

    @server.prompt()
    def greet(name: str) -> str:
        note("prompt", name=name)
        return f"Greet {name}."

    return server


def library(journal: Path) -> Server[Any]:
    tools = [types.Tool(name=f"book_{number}", input_schema={"type": "object"}) for number in range(BOOKS)]

    async def listed(_: Any, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        first = int(params.cursor) if params is not None and params.cursor else 0
        more = str(first + PAGE) if first + PAGE < len(tools) else None
        return types.ListToolsResult(
            tools=tools[first : first + PAGE], next_cursor=more, ttl_ms=3_600_000, cache_scope="public"
        )

    async def called(_: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        with journal.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"tool": params.name}) + "\n")
        return types.CallToolResult(content=[types.TextContent(type="text", text=params.name)])

    return Server("library", version="1", on_list_tools=listed, on_call_tool=called)


def main() -> None:
    which, socket, journal = sys.argv[1:]
    # The check of Host guards against browsers, and no browser reaches a Unix socket.
    open_to_all = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    built = workshop(Path(journal)) if which == "workshop" else library(Path(journal))
    application: Starlette = built.streamable_http_app(transport_security=open_to_all)
    uvicorn.run(application, uds=socket, log_level="error", timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
