"""Server-sent events (HTML Living Standard, section 9.2): bytes as they come to whole events, and back.

An event keeps the bytes that it came in, so that a relay passes it on verbatim. Where one event ends depends on the
bytes alone, never on how they were cut into chunks::

    b"id: 7\\ndata: {}\\n\\n"  →  SseEvent(raw=b"id: 7\\ndata: {}\\n\\n", event="message", data="{}", id="7")
"""

import re
from dataclasses import dataclass

# A CR at the end of what has arrived may be half of a CRLF: it ends nothing until the next byte is there.
_EOL = rb"(?:\r\n|\n|\r(?=[^\n]))"
_END = re.compile(_EOL + _EOL, re.DOTALL)
_LINES = re.compile("\r\n|\n|\r")
_LONGEST_END = 4
_BOM = "\ufeff"


class SseFault(ValueError):
    """The stream is not one that we relay: an event is larger than the limit."""


@dataclass(frozen=True, slots=True)
class SseEvent:
    """One event with the bytes that it came in. Without a data field (a comment, a keep-alive) ``data`` is empty."""

    raw: bytes
    event: str
    data: str
    id: str | None


class SseDecoder:
    """Cuts a stream into events. ``limit`` bounds the bytes of one event, terminator included."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._first = True

    @property
    def pending(self) -> int:
        """Bytes that have arrived and belong to an event that is not whole."""
        return len(self._buffer)

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """The events that are whole now. Raises SseFault when one is too large."""
        buffer = self._buffer
        search_from = max(0, len(buffer) - _LONGEST_END)
        buffer += chunk
        events: list[SseEvent] = []
        start = 0
        while (end := _END.search(buffer, max(start, search_from))) is not None:
            events.append(self._event(bytes(buffer[start : end.end()])))
            start = end.end()
        if start:
            del buffer[:start]
        if len(buffer) > self._limit:
            raise SseFault(f"an event of more than {self._limit} bytes")
        return events

    def finish(self) -> list[SseEvent]:
        """The stream is over: the last event if it was only waiting for the second half of a CRLF, else nothing.

        An event that is not whole is dropped, as the standard says.
        """
        raw = bytes(self._buffer)
        self._buffer.clear()
        if raw.endswith(b"\r") and _END.search(raw + b"x", max(0, len(raw) - _LONGEST_END)):
            return [self._event(raw)]
        return []

    def _event(self, raw: bytes) -> SseEvent:
        if len(raw) > self._limit:
            raise SseFault(f"an event of more than {self._limit} bytes")
        text = raw.decode("utf-8", "replace")
        if self._first:
            text = text.removeprefix(_BOM)
            self._first = False
        kind, identifier = "", None
        data: list[str] = []
        for line in _LINES.split(text):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                data.append(value)
            elif name == "event":
                kind = value
            elif name == "id" and "\0" not in value:
                identifier = value
        return SseEvent(raw, kind or "message", "\n".join(data), identifier)


def encode(data: bytes, event: str = "message", id: str | None = None) -> bytes:
    """One event. Neither ``event`` nor ``id`` may hold a line break; ``data`` may."""
    head = f"event: {event}\n" + ("" if id is None else f"id: {id}\n")
    lines = b"".join(b"data: " + line + b"\n" for line in re.split(rb"\r\n|\n|\r", data))
    return head.encode() + lines + b"\n"


def comment(text: str) -> bytes:
    """A line that readers skip, for keep-alives and for telling people who look at the stream."""
    return b": " + _LINES.sub(" ", text).encode() + b"\n\n"
