"""``taskgrant stdio``: a client's standard input and output, bridged to the gateway until the client ends it."""

import asyncio
import os
import signal
import sys
from urllib.parse import quote, urlsplit

from taskgrant.audit.logs import setup_logging
from taskgrant.bridge.bridge import Bridge
from taskgrant.bridge.gateway import Gateway
from taskgrant.errors import ConfigurationError

GATEWAY = "http://127.0.0.1:15002"
LIMIT = 4 << 20
_READ_AHEAD = 1 << 16


def endpoint(gateway: str, server: str, path: str = "/mcp") -> str:
    """``http://127.0.0.1:15002/<server>/mcp``. Raises ``ConfigurationError``."""
    parts = urlsplit(gateway)
    if parts.scheme != "http" or not parts.hostname or parts.query or parts.fragment:
        raise ConfigurationError([f"--gateway: {gateway!r} is not http://host:port"])
    if not path.startswith("/"):
        raise ConfigurationError([f"--path: {path!r} does not begin with /"])
    return f"{gateway.rstrip('/')}/{quote(server, safe='')}{path}"


def run(url: str) -> int:
    """Until the client closes standard input, or SIGTERM. Raises ``ConfigurationError``."""
    setup_logging(sys.stderr)
    handle = os.environ.get("TASKGRANT_TASK") or None
    asyncio.run(_main(url, handle))
    return 0


async def _main(url: str, handle: str | None) -> None:
    loop = asyncio.get_running_loop()
    source = asyncio.StreamReader(limit=_READ_AHEAD)
    try:
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(source), sys.stdin)
        transport, protocol = await loop.connect_write_pipe(
            lambda: asyncio.streams.FlowControlMixin(loop=loop), sys.stdout
        )
    except (ValueError, PermissionError):
        raise ConfigurationError(
            ["standard input and output must be pipes: an MCP client starts this command"]
        ) from None
    transport.set_write_buffer_limits(
        high=0
    )  # what was told is with the client: nothing waits here when we end
    output = asyncio.StreamWriter(transport, protocol, None, loop)
    async with Gateway(url, handle) as gateway:
        talking = asyncio.ensure_future(Bridge(gateway, output, LIMIT).run(source))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, talking.cancel)
        await asyncio.wait({talking})
        if not talking.cancelled():
            talking.result()
    transport.close()
