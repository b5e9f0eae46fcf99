"""Server-sent events (HTML, section 9.2.6), as much of it as the control API uses: fed bytes, yields
whole events."""

from collections.abc import Iterator
from dataclasses import dataclass

#: An event of the authority holds identifiers and states; a snapshot holds them for every live task.
MAX_EVENT = 64 << 20


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    name: str
    data: str


class Parser:
    """Feed it what arrives, in any pieces. A comment yields nothing; an unfinished event is never
    dispatched."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._name = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[ServerSentEvent]:
        """Raises ValueError for an event beyond MAX_EVENT. Bytes that are not UTF-8 become U+FFFD, as
        the standard says."""
        self._rest += chunk
        *lines, rest = self._rest.split(b"\n")
        self._rest = rest
        for line in lines:
            event = self._line(line.removesuffix(b"\r").decode("utf-8", "replace"))
            if event is not None:
                yield event
        if self._size + len(self._rest) > MAX_EVENT:
            raise ValueError(f"an event is larger than {MAX_EVENT} bytes")

    def _line(self, line: str) -> ServerSentEvent | None:
        if not line:
            event = ServerSentEvent(self._name or "message", "\n".join(self._data)) if self._data else None
            self._name, self._data, self._size = "", [], 0
            return event
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
            self._size += len(value)
        elif name == "event":
            self._name = value
        return None
