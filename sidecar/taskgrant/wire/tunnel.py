"""CONNECT, as far as it goes: a head that is read and answered, and a connection that is told whom it was for."""

from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus

from taskgrant.errors import Refused
from taskgrant.model.call import Head
from taskgrant.model.codes import Code
from taskgrant.protocols.connect import MAX_BYTES, Connect, read_connect
from taskgrant.protocols.framing import FramingFault
from taskgrant.wire.intake import presented_handle
from taskgrant.wire.listener import Accepted
from taskgrant.wire.peeking import last_word, peek, take
from taskgrant.wire.problem import problem

#: Raises ``errors.Refused`` for a host, in lower case, and a port that CONNECT may not name.
Admit = Callable[[str, int], None]

_GRANTED = b"HTTP/1.1 200 Connection established\r\n\r\n"


def none(host: str, port: int) -> None:
    """Admits nothing."""
    raise Refused(Code.UNSUPPORTED, "CONNECT is not supported here")


async def open_tunnel(accepted: Accepted, admit: Admit, seconds: float) -> Accepted:
    """Reads the request and answers 200: the same connection, with ``tunnel`` and ``handle``.

    Raises ``errors.Refused``, answered, for what is malformed, is not admitted, or shows a handle that is none.
    """
    request: Connect | FramingFault = await peek(accepted.sock, _judge, MAX_BYTES, seconds)
    if isinstance(request, FramingFault):
        raise _refuse(accepted, Refused(request.code, str(request)))
    take(accepted.sock, request.length)
    dialled = f"{request.host}:{request.port}"
    try:
        handle = presented_handle(Head("CONNECT", "", "", request.headers))
        admit(request.host, request.port)
    except Refused as refused:
        raise _refuse(accepted, Refused(refused.code, refused.reason, dialled=dialled)) from None
    accepted.sock.send(_GRANTED)
    return replace(accepted, tunnel=(request.host, request.port), handle=handle)


def _judge(seen: bytes) -> Connect | FramingFault | int:
    try:
        found = read_connect(seen)
    except FramingFault as fault:
        return fault
    return len(seen) + 1 if found is None else found


def _refuse(accepted: Accepted, refused: Refused) -> Refused:
    """Answers it; the code is in the status line too, which is all that most clients show."""
    answer = problem(Code(refused.code), refused.reason)
    phrase = f"{HTTPStatus(answer.status).phrase} ({refused.code})"
    head = (
        f"HTTP/1.1 {answer.status} {phrase}\r\ncontent-type: {answer.content_type}\r\n"
        f"content-length: {len(answer.body)}\r\nconnection: close\r\n\r\n"
    )
    last_word(accepted.sock, head.encode() + answer.body)
    return Refused(refused.code, refused.reason, answered=True, **refused.details)
