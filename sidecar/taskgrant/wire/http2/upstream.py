"""gRPC calls to tool servers over HTTP/2 and TLS: a connection for each, under the task's certificate and token.

    connect (ALPN h2) → held by the leg → admit → request → answer's messages, whole ones only → trailers

One connection, one stream, one credential: severing the leg aborts the transport, and nothing else is on it. What comes
back is framed messages, checked but not read, and of the trailers an allowlist. Failures say whether the server may
have seen the call: ``upstream_unreachable`` (not a byte was written) or ``outcome_unknown``.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import H2Error

from taskgrant.errors import Refused
from taskgrant.model.call import Headers, Outbound
from taskgrant.model.codes import Code
from taskgrant.model.credential import Issued
from taskgrant.model.ports import Duplex
from taskgrant.wire.legs import Leg
from taskgrant.wire.transports import abort
from taskgrant.wire.upstream import Contexts

_CONNECT_SECONDS: Final = 10.0
_MESSAGE_LIMIT: Final = 16 << 20
_PREFIX: Final = 5
_READ: Final = 1 << 16
_FRAME: Final = 1 << 14
_TRAILERS: Final = ("grpc-status", "grpc-message")
_FAULTS = (OSError, H2Error, EOFError)


class GrpcReply:
    """``ports.Reply``. ``trailers`` are there when ``chunks`` has ended; each chunk is a whole framed message."""

    def __init__(self, exchange: "_Exchange", serial: str) -> None:
        self.status = exchange.status
        self.headers: Headers = (("content-type", "application/grpc"),)
        self.serial = serial
        self.trailers: Headers = ()
        self.duplex: Duplex | None = None
        self.subprotocol: str | None = None
        self._exchange = exchange

    async def chunks(self) -> AsyncIterator[bytes]:
        """Reading slowly slows the server down. Raises ``errors.Refused`` (outcome_unknown, unsupported)."""
        while (message := await self._exchange.message()) is not None:
            yield message
        self.trailers = self._exchange.trailers


class GrpcUpstream:
    """``contexts`` is asked for each call; it raises ``errors.Refused`` for a dropped credential."""

    def __init__(self, contexts: Contexts) -> None:
        self._contexts = contexts

    @asynccontextmanager
    async def send(
        self, out: Outbound, issued: Issued, leg: Leg, admit: Callable[[], Awaitable[None]]
    ) -> AsyncIterator[GrpcReply]:
        """One request, at most once. Raises as ``HttpUpstream.send`` does."""
        context, hostname = self._contexts(issued, issued.audience)
        reader, writer = await _connect(out.url, context, hostname)
        try:
            if writer.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
                raise _unreachable("does not speak HTTP/2")
            leg.hold(writer.transport)
            await admit()
            leg.check()
            if writer.transport.is_closing():
                raise _unreachable("ended the connection")
            leg.begun = True
            exchange = _Exchange(reader, writer)
            await exchange.ask(out, issued.token)
            leg.check()
            yield GrpcReply(exchange, issued.serial)
        finally:
            leg.drop(writer.transport)
            abort(writer.transport)


class _Exchange:
    """The one stream of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.status = 0
        self.trailers: Headers = ()
        self._reader = reader
        self._writer = writer
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._stream = 0
        self._body = bytearray()
        self._ended = False

    async def ask(self, out: Outbound, token: str) -> None:
        """Sends the request, and reads as far as the answer's head. Raises ``errors.Refused``."""
        url = urlsplit(out.url)
        fields = [
            (":method", out.method), (":scheme", "https"), (":authority", url.netloc), (":path", url.path),
            ("content-type", "application/grpc"), ("te", "trailers"), ("user-agent", "taskgrant"),
            ("authorization", f"Bearer {token}"), *out.headers,
        ]  # fmt: skip
        try:
            self._h2.initiate_connection()
            self._h2.update_settings({0x2: 0})  # no server push
            self._stream = self._h2.get_next_available_stream_id()
            self._h2.send_headers(self._stream, fields)
            left = memoryview(out.body)
            while left and not self._ended:
                room = min(
                    self._h2.local_flow_control_window(self._stream), self._h2.max_outbound_frame_size, _FRAME
                )
                if room <= 0:
                    await self._more()
                    continue
                self._h2.send_data(self._stream, bytes(left[:room]), end_stream=room >= len(left))
                left = left[room:]
                await self._flush()
            while not self.status and not self._ended:
                await self._more()
        except _FAULTS as fault:
            raise _unknown() from fault
        if self.status in (401, 403, 407):
            raise Refused(Code.CREDENTIAL_REFUSED, "the tool server did not accept this task's credential")
        if self.status != 200:
            raise Refused(
                Code.OUTCOME_UNKNOWN, f"the tool server answered {self.status}, and no gRPC", begun=True
            )

    async def message(self) -> bytes | None:
        """The next message, framed; None at the end. Raises ``errors.Refused``."""
        try:
            while not (whole := self._whole()):
                if self._ended:
                    if self._body or not any(name == "grpc-status" for name, _ in self.trailers):
                        raise _unknown()
                    return None
                await self._more()
        except _FAULTS as fault:
            raise _unknown() from fault
        message = bytes(self._body[:whole])
        del self._body[:whole]
        return message

    def _whole(self) -> int:
        """The length of the message that is whole, its prefix included; 0 while none is."""
        if not self._body:
            return 0
        if self._body[0] != 0:
            raise Refused(
                Code.UNSUPPORTED,
                "the tool server's answer is compressed, which was not asked for",
                begun=True,
            )
        if len(self._body) < _PREFIX:
            return 0
        length = int.from_bytes(self._body[1:_PREFIX], "big")
        if length > _MESSAGE_LIMIT:
            raise Refused(
                Code.TOO_LARGE, "the tool server's message is larger than the sidecar takes", begun=True
            )
        return _PREFIX + length if len(self._body) >= _PREFIX + length else 0

    async def _more(self) -> None:
        await self._flush()
        data = await self._reader.read(_READ)
        if not data:
            raise EOFError
        for event in self._h2.receive_data(data):
            self._happened(event)
        await self._flush()

    def _happened(self, event: Event) -> None:
        match event:
            case ResponseReceived():
                fields = _fields(event)
                self.status = int(fields.get(":status", "0"))
                self.trailers = _kept(fields)  # of an answer that is nothing else
            case TrailersReceived():
                self.trailers = _kept(_fields(event))
            case DataReceived():
                self._body += event.data or b""
                self._h2.acknowledge_received_data(event.flow_controlled_length or 0, self._stream)
            case StreamEnded():
                self._ended = True
            case StreamReset() | ConnectionTerminated():
                if not self._ended:
                    raise EOFError

    async def _flush(self) -> None:
        self._writer.write(self._h2.data_to_send())
        await self._writer.drain()


async def _connect(
    address: str, context: ssl.SSLContext, hostname: str | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    url = urlsplit(address)
    host = url.hostname or ""
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            return await asyncio.open_connection(
                host, url.port or 443, ssl=context, server_hostname=hostname or host, limit=_READ
            )
    except TimeoutError as fault:
        raise _unreachable("did not answer in time") from fault
    except OSError as fault:
        raise _unreachable("could not be connected to") from fault


def _fields(event: ResponseReceived | TrailersReceived) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in event.headers or ():
        with contextlib.suppress(UnicodeDecodeError):
            found.setdefault(_text(name), _text(value))
    return found


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8")


def _kept(fields: dict[str, str]) -> Headers:
    return tuple((name, fields[name]) for name in _TRAILERS if name in fields)


def _unreachable(why: str) -> Refused:
    return Refused(Code.UPSTREAM_UNREACHABLE, f"the tool server {why}; nothing was sent")


def _unknown() -> Refused:
    reason = "the connection to the tool server failed after the call was sent; what it did is unknown"
    return Refused(Code.OUTCOME_UNKNOWN, reason, begun=True)
