"""What a server answers over HTTP/1.1: a status, the headers that are passed on, and the body as it comes.

A body that was cut short is an error, never an end; a change of protocol is taken only where it was asked for.
"""

from collections.abc import AsyncIterator, Callable

from aiohttp import ClientError, ClientResponse
from aiohttp.http_exceptions import HttpProcessingError

from taskgrant.errors import Refused
from taskgrant.model.call import Headers
from taskgrant.model.codes import Code
from taskgrant.model.ports import Duplex
from taskgrant.wire.pool import Resent, Sending
from taskgrant.wire.websocket import Handshake

#: Headers of a tool server that are passed on; everything else (cookies, challenges, hop-by-hop, …) stays here.
KEPT = frozenset({"content-type", "mcp-session-id", "mcp-protocol-version", "cache-control", "retry-after"})
#: How the HTTP client fails.
FAULTS = (ClientError, OSError, HttpProcessingError, Resent, ValueError)  # TimeoutError is an OSError

#: Whether a header of an answer is passed on, by its name in lower case.
Keeps = Callable[[str], bool]


class HttpReply:
    """``ports.Reply``."""

    __slots__ = ("_response", "_sending", "duplex", "headers", "serial", "status", "subprotocol", "trailers")

    def __init__(
        self,
        response: ClientResponse,
        sending: Sending,
        serial: str,
        keeps: Keeps,
        handshake: Handshake | None = None,
    ) -> None:
        """Raises ``errors.Refused`` (unsupported) for a change of protocol that nobody asked for."""
        self.duplex: Duplex | None = None
        self.subprotocol: str | None = None
        if response.status == 101 and handshake is not None and sending.protocol is not None:
            self.duplex, self.subprotocol = handshake.accepted(response.headers, sending.protocol)
        elif response.status < 200:
            raise Refused(Code.UNSUPPORTED, "the tool server wants to change the protocol", begun=True)
        self.status = response.status
        self.headers = _kept(response, keeps)
        self.serial = serial
        self.trailers: Headers = ()
        self._response = response
        self._sending = sending

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes; reading slowly slows the server down. Raises ``errors.Refused`` (outcome_unknown)."""
        content = self._response.content
        try:
            while chunk := await content.readany():
                yield chunk
        except FAULTS as fault:
            raise outcome_unknown() from fault
        self._sending.leg.check()
        # A body that only the connection's end delimits looks whole even when that end was a reset.
        protocol = self._sending.protocol
        if (
            protocol is not None
            and isinstance(protocol.exception(), OSError)
            and not _delimited(self._response)
        ):
            raise outcome_unknown() from protocol.exception()


def check_encoding(response: ClientResponse) -> None:
    """Raises ``errors.Refused`` (unsupported) for a body that is encoded: nobody has asked for that."""
    for encoding in response.headers.getall("content-encoding", ()):
        if encoding.strip().lower() not in ("", "identity"):
            raise Refused(
                Code.UNSUPPORTED,
                "the tool server's answer is encoded in a way that was not asked for",
                begun=True,
            )


def outcome_unknown() -> Refused:
    reason = "the connection to the tool server failed after the call was sent; what it did is unknown"
    return Refused(Code.OUTCOME_UNKNOWN, reason, begun=True)


def _kept(response: ClientResponse, keeps: Keeps) -> Headers:
    kept: dict[str, str] = {}
    for name, value in response.headers.items():
        name = name.lower()
        if keeps(name):
            kept.setdefault(name, value)
    return tuple(kept.items())


def _delimited(response: ClientResponse) -> bool:
    return "content-length" in response.headers or "transfer-encoding" in response.headers
