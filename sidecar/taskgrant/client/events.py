"""From a stream's bytes to events of the authority, or to the problem that ended it."""

from collections.abc import Iterator

from taskgrant.client import operations
from taskgrant.client.sse import Parser, ServerSentEvent
from taskgrant.errors import Refused
from taskgrant.model import documents
from taskgrant.model.codes import Code
from taskgrant.model.decoding import decode
from taskgrant.model.event import Event, EventKind


def feed(parser: Parser, chunk: bytes) -> Iterator[Event]:
    """The events that the chunk completes, without those of a kind that only a newer authority knows.

    Raises Refused for a problem, and for an event that is not understood: to overlook one could be to
    overlook a revocation.
    """
    try:
        for received in parser.feed(chunk):
            event = _read(received)
            if event is not None:
                yield event
    except ValueError as error:
        raise Refused(Code.AUTHORITY_UNAVAILABLE, f"the event stream is not understood: {error}") from None


def _read(received: ServerSentEvent) -> Event | None:
    if received.name == "problem":
        raise operations.refusal(200, received.data.encode())
    document = decode(received.data)
    if not isinstance(document, dict):
        raise ValueError("an event is no JSON object")
    return documents.read_event(document) if document.get("kind") in frozenset(EventKind) else None
