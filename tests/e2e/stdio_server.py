"""A tool server that is a child process: the ``mcp`` package's own on standard input and output, in a few lines."""

# ruff: noqa: E402
import os

#: What was open when the process began: nothing has been imported that opens anything.
DESCRIPTORS = sorted(
    int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")
)

import asyncio
import resource
import subprocess
from typing import Annotated, Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.resolve import Elicit, Resolve
from pydantic import BaseModel

server = MCPServer("desk", version="1.0", log_level="ERROR")
calls: list[str] = []


@server.tool()
def add(a: int, b: int) -> int:
    return a + b


@server.tool()
def remember(text: str) -> list[str]:
    """All that was said to this process."""
    calls.append(text)
    return calls


class Colour(BaseModel):
    colour: str


async def ask_colour() -> Elicit[Colour]:
    return Elicit("Which colour?", Colour)


@server.tool()
async def paint(what: str, colour: Annotated[Colour, Resolve(ask_colour)]) -> str:
    """Asks the client back."""
    return f"{what} is {colour.colour}"


@server.tool()
def inspect() -> dict[str, Any]:
    """What this process was given."""
    return {
        "pid": os.getpid(),
        "environment": dict(os.environ),
        "descriptors": DESCRIPTORS,
        "most_descriptors": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    }


@server.tool()
def breed() -> list[int]:
    """This process, and two that it started, one of them in a session of its own."""
    near = subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    far = subprocess.Popen(["setsid", "sh", "-c", "trap '' TERM; sleep 600; :"], stdout=subprocess.DEVNULL)
    return [os.getpid(), near.pid, far.pid]


@server.tool()
async def wait(seconds: float, context: Context) -> str:
    await context.report_progress(1, 2, "begun")
    await asyncio.sleep(seconds)
    return "waited"


if __name__ == "__main__":
    server.run()
