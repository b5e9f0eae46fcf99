"""WebSocket (RFC 6455) without I/O: the opening handshake, and one side's frames to whole messages and back.

    bytes → Frames.feed → Frames.events → Message, Ping, Close        Frames.message, pong, close → bytes

Nothing of a frame is passed on: a message is put together from its fragments, checked (masks, reserved bits, UTF-8,
size) and framed anew. There are no extensions (section 9.1): none is offered, none is taken.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterator
from dataclasses import dataclass

from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode, ParseFailed

from taskgrant.model.call import Head, Headers
from taskgrant.model.codes import Code

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION = "13"
_TOKEN = re.compile(r"[!#$%&'*+.^`|~0-9A-Za-z_-]{1,128}")
_MAX_SUBPROTOCOLS = 16
#: What a fragment counts for at least: one that holds next to nothing costs as much as one that holds something.
FRAGMENT_COST = 64

NORMAL, NO_STATUS = 1000, 1005
_CLOSE_CODES = {Code.MALFORMED: 1002, Code.TOO_LARGE: 1009}
_POLICY_VIOLATION = 1008


class HandshakeFault(ValueError):
    """The opening handshake is not one of RFC 6455."""


class FrameFault(ValueError):
    """What came is no WebSocket, or more than is taken. ``code`` is too_large or malformed."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message: str for text, bytes for binary."""

    data: str | bytes

    @property
    def size(self) -> int:
        """In bytes, as it is sent."""
        return len(self.data.encode() if isinstance(self.data, str) else self.data)


@dataclass(frozen=True, slots=True)
class Ping:
    payload: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """``code`` 1005 says that the frame had none (section 7.1.5)."""

    code: int = NORMAL
    reason: str = ""


def is_upgrade(head: Head) -> bool:
    """Whether the request wants to change the protocol (RFC 9110, section 7.8)."""
    return head.get("upgrade") is not None


def read_opening(head: Head) -> tuple[str, ...]:
    """The subprotocols that a client offers, in its order. Raises HandshakeFault (section 4.2.1).

    Extensions that it offers are not looked at: the answer takes none of them.
    """
    for name in ("sec-websocket-key", "sec-websocket-version"):
        if head.count(name) != 1:
            raise HandshakeFault(f"there must be exactly one {name}")
    if head.get("sec-websocket-version") != _VERSION:
        raise HandshakeFault(f"the version of WebSocket spoken here is {_VERSION}")
    try:
        nonce = base64.b64decode(head.get("sec-websocket-key") or "", validate=True)
    except (binascii.Error, ValueError):
        nonce = b""
    if len(nonce) != 16:
        raise HandshakeFault("sec-websocket-key is not 16 bytes in base64")
    offered = [
        each.strip(" \t")
        for name, value in head.headers
        if name == "sec-websocket-protocol"
        for each in value.split(",")
    ]
    if len(offered) > _MAX_SUBPROTOCOLS or not all(map(_TOKEN.fullmatch, offered)):
        raise HandshakeFault("sec-websocket-protocol is no list of a few names")
    if len(set(offered)) != len(offered):
        raise HandshakeFault("a subprotocol is offered twice")
    return tuple(offered)


def opening(key: str, subprotocols: tuple[str, ...]) -> Headers:
    """What a client's handshake says beside its target (section 4.1). ``key`` is 16 random bytes in base64."""
    headers: Headers = (
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", key),
        ("sec-websocket-version", _VERSION),
    )
    return (*headers, ("sec-websocket-protocol", ", ".join(subprotocols))) if subprotocols else headers


def check_accepted(key: str, subprotocols: tuple[str, ...], headers: Headers) -> str | None:
    """The subprotocol that a server chose with its 101. Raises HandshakeFault (section 4.1, the client's checks)."""
    told: dict[str, list[str]] = {}
    for name, value in headers:
        told.setdefault(name.lower(), []).append(value.strip(" \t"))
    if [value.lower() for value in told.get("upgrade", ())] != ["websocket"]:
        raise HandshakeFault("the server changes to something else than WebSocket")
    if not is_listed("upgrade", told.get("connection", [])):
        raise HandshakeFault("the server's answer does not say that the connection changes")
    accepts = told.get("sec-websocket-accept", [])
    if len(accepts) != 1 or not hmac.compare_digest(accepts[0].encode(), accept_key(key).encode()):
        raise HandshakeFault("the server's answer is not to this handshake")
    if "sec-websocket-extensions" in told:
        raise HandshakeFault("the server uses an extension that was not offered")
    chosen = told.get("sec-websocket-protocol", [])
    if chosen and (len(chosen) != 1 or chosen[0] not in subprotocols):
        raise HandshakeFault("the server chose a subprotocol that was not offered")
    return chosen[0] if chosen else None


def accepted(head: Head, subprotocol: str | None) -> Headers:
    """What a server's 101 says to a handshake that ``read_opening`` took (section 4.2.2)."""
    headers: Headers = (
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-accept", accept_key(head.get("sec-websocket-key") or "")),
    )
    return headers if subprotocol is None else (*headers, ("sec-websocket-protocol", subprotocol))


def accept_key(key: str) -> str:
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def is_listed(token: str, values: list[str]) -> bool:
    """Whether a list header names a token, in whatever case."""
    return token in {each.strip(" \t").lower() for value in values for each in value.split(",")}


def refusal(code: Code, reason: str) -> Close:
    """A refusal as a server's last frame: the code first, so that a reason too long loses its end only."""
    return Close(_CLOSE_CODES.get(code, _POLICY_VIOLATION), f"{code}: {reason}")


def last_frame(close: Close) -> bytes:
    """The frame of a server that closes, of whatever it has sent before."""
    return Frames(client=False, limit=0).close(close)


class Frames:
    """One end of a connection. ``client`` says which: a client masks what it sends, and is sent nothing masked."""

    def __init__(self, *, client: bool, limit: int) -> None:
        """``limit``: bytes of a message, each fragment counted as ``FRAGMENT_COST`` at least."""
        self._protocol = FrameProtocol(client, [])
        self._limit = limit
        self._parts = bytearray()
        self._cost = 0

    def feed(self, data: bytes) -> None:
        self._protocol.receive_bytes(data)

    def events(self) -> Iterator[Message | Ping | Close | None]:
        """What the bytes so far hold; None for a frame that says nothing yet. No frame is read before it is asked for.

        Nothing follows a Close. Raises FrameFault, and after that nothing is to be read.
        """
        frames = self._protocol.received_frames()
        while True:
            try:
                frame = next(frames, None)
            except ParseFailed as fault:
                raise FrameFault(Code.MALFORMED, str(fault)) from fault
            if frame is None:
                return
            payload = frame.payload
            if isinstance(payload, tuple):
                yield Close(int(payload[0]), payload[1])
                return
            data = payload.encode() if isinstance(payload, str) else payload
            if frame.opcode is Opcode.PING:
                yield Ping(data)
            elif frame.opcode is Opcode.PONG:
                yield None
            else:
                yield self._collect(frame.opcode, data, frame.frame_finished, frame.message_finished)

    def _collect(self, opcode: Opcode, data: bytes, ends_frame: bool, ends_message: bool) -> Message | None:
        self._parts += data
        self._cost += max(len(data), FRAGMENT_COST if ends_frame and not ends_message else 0)
        if self._cost > self._limit:
            raise FrameFault(Code.TOO_LARGE, f"a message is larger than {self._limit} bytes")
        if not ends_message:
            return None
        whole, self._parts, self._cost = bytes(self._parts), bytearray(), 0
        return Message(whole.decode() if opcode is Opcode.TEXT else whole)

    def message(self, message: Message) -> bytes:
        return bytes(self._protocol.send_data(message.data))

    def pong(self, payload: bytes) -> bytes:
        return bytes(self._protocol.pong(payload))

    def close(self, close: Close) -> bytes:
        """A reason that is too long loses its end."""
        code = CloseReason.NO_STATUS_RCVD if close.code == NO_STATUS else close.code
        return bytes(self._protocol.close(code, close.reason or None))
