"""The framing of MCP's stdio transport: one JSON-RPC message a line, no line break within (MCP, "stdio").

::

    b'{"jsonrpc":"2.0","id":1,"method":"ping"}\\n{"json'   →   [b'{"jsonrpc":"2.0","id":1,"method":"ping"}']

What is written is ASCII. Readers differ in what ends a line: Node's ``readline`` and Python's ``splitlines`` take
U+2028 and others for an end, so that a string with one in it would be two messages to them, the second of which nobody
has decided on.
"""

from collections.abc import Mapping

from taskgrant.model.decoding import encode_ascii
from taskgrant.model.json import Json


class LineDecoder:
    """Cuts a stream into lines. ``limit`` bounds the bytes of one, and with it what is kept in memory."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = bytearray()
        self._skipping = False

    @property
    def too_long(self) -> bool:
        """Whether the line that is arriving is too long already."""
        return self._skipping

    def feed(self, chunk: bytes) -> list[bytes | None]:
        """The lines that are whole now, without their ends and without empty ones. None stands for one too long."""
        found: list[bytes | None] = []
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            self._take(piece)
            self._end(found)
        self._take(rest)
        return found

    def finish(self) -> list[bytes | None]:
        """The stream is over: its last line may lack an end."""
        found: list[bytes | None] = []
        self._end(found)
        return found

    def _take(self, piece: bytes) -> None:
        if self._skipping or len(self._rest) + len(piece) > self._limit:
            self._skipping = True
            self._rest.clear()
        else:
            self._rest += piece

    def _end(self, found: list[bytes | None]) -> None:
        if self._skipping:
            found.append(None)
        elif line := bytes(self._rest).strip(b" \t\r"):
            found.append(line)
        self._skipping = False
        self._rest.clear()


def encode(message: Mapping[str, Json]) -> bytes:
    """One message as a line. Raises ValueError for what JSON cannot say."""
    return encode_ascii(message) + b"\n"
