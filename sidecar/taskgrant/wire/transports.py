"""Ending a connection at once."""

import asyncio
import contextlib
import socket
import struct

_LINGER_NOT = struct.pack("ii", 1, 0)


def abort(transport: asyncio.BaseTransport) -> None:
    """Closes with a reset, so that nothing is flushed: neither what we hold nor what the kernel holds of it.

    A plain close leaves up to some megabytes in the kernel's buffer, and goes on sending them to a slow peer.
    """
    # Closed already: a socket says so by OSError, and asyncio's TLS transports have let go of what they ask.
    with contextlib.suppress(OSError, AttributeError):
        inner = transport.get_extra_info("socket")
        if inner is not None:
            inner.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    if isinstance(transport, asyncio.WriteTransport) or hasattr(transport, "abort"):
        transport.abort()
    else:
        transport.close()
