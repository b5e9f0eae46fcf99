"""Instants: seconds since the Unix epoch, UTC, as a float; and their RFC 3339 form on the wire.

Code never reads a clock on its own: it is handed an instant. The only reader is the ``Clock`` of the process, which
follows ``min(wall, boot-time)`` so that a clock that is set back extends no grant.
"""

from datetime import UTC, datetime
from typing import NewType, Protocol

Instant = NewType("Instant", float)


class Clock(Protocol):
    def now(self) -> Instant: ...


def to_rfc3339(at: Instant) -> str:
    """``2026-01-31T12:00:00.123456Z`` (RFC 3339, section 5.6; microseconds, always UTC)."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def from_rfc3339(text: str) -> Instant:
    """The instant that an RFC 3339 date-time names. Raises ValueError for anything else, also without an offset."""
    parsed = datetime.fromisoformat(text)
    if parsed.tzinfo is None:
        raise ValueError(f"{text!r} has no time offset")
    return Instant(parsed.timestamp())
