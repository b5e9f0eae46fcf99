"""TLS of the agent: read whom it is for, then end it here, or let it through unread, or refuse it.

    ClientHello, peeked → name = what CONNECT named? → known? → certificate for the name → HTTP, as without TLS
                                                  └ on the splice list → bytes, to that host only

Nothing is signed for a name that may not be dialled. A client that is refused gets a TLS alert (RFC 8446, section 6)
instead of a certificate. Whether a host is spliced is decided by the list alone, before a byte is answered: a handshake
that has failed is over. Upstream, nothing changes: calls leave over the sidecar's own TLS, with its own verification.
"""

import contextlib
import ssl
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Literal

from taskgrant.errors import Refused
from taskgrant.model.catalogue import DEFAULT_PORTS
from taskgrant.model.codes import Code
from taskgrant.model.egress import EgressHost, EgressHosts, Mode
from taskgrant.protocols.tls import MAX_BYTES, ClientHello, NotHello, Partial, read_hello
from taskgrant.wire.dispatching import Serve
from taskgrant.wire.intake import Inside
from taskgrant.wire.listener import Accepted
from taskgrant.wire.peeking import last_word, peek
from taskgrant.wire.splice import Splice

#: Stands in for a server, by name and port. Raises ``errors.Refused`` when https to it is not served here.
Context = Callable[[str, int], ssl.SSLContext]

_HTTPS: Final = DEFAULT_PORTS["https"]
_HTTP2: Final = "h2"
_SPOKEN: Final = frozenset({_HTTP2, "http/1.1"})
# RFC 8446, section 6.2
_HANDSHAKE_FAILURE: Final = 40
_ACCESS_DENIED: Final = 49
_DECODE_ERROR: Final = 50
_UNRECOGNIZED_NAME: Final = 112
_NO_APPLICATION_PROTOCOL: Final = 120


class Interceptor:
    """A host that is listed to be spliced is asked of ``splice``, every other one of ``context``."""

    def __init__(self, context: Context, seconds: float, hosts: EgressHosts, splice: Splice) -> None:
        """``seconds``: for the hello to arrive."""
        self._context = context
        self._seconds = seconds
        self._hosts = hosts
        self._splice = splice

    async def speak(self, accepted: Accepted, serve: Serve) -> None:
        """A ``dispatching.Speaker``."""
        hello: ClientHello | NotHello = await peek(accepted.sock, _judge, MAX_BYTES, self._seconds)
        if isinstance(hello, NotHello):
            raise _refuse(accepted, _DECODE_ERROR, Code.MALFORMED, hello.reason)
        name, port = self._named(accepted, hello)
        host = self._hosts.dialled("https", name, port)
        if host is not None and host.mode is Mode.SPLICE:
            await self._let_through(accepted, hello, host, port)
            return
        try:
            context = self._context(name, port)
        except Refused as refused:
            raise _refuse(
                accepted, _UNRECOGNIZED_NAME, Code(refused.code), refused.reason, name, port
            ) from None
        if hello.alpn and not _SPOKEN.intersection(hello.alpn):
            reason = "the client offers neither HTTP/2 nor HTTP/1.1, which are what is spoken here"
            raise _refuse(accepted, _NO_APPLICATION_PROTOCOL, Code.UNSUPPORTED, reason, name, port)
        way: Literal["transparent", "connect"] = "transparent" if accepted.tunnel is None else "connect"
        # A context of ours prefers HTTP/2, so that a client that offers it gets it.
        await serve(
            replace(accepted, inside=Inside(way, "https", name, port)), context, http2=_HTTP2 in hello.alpn
        )

    def _named(self, accepted: Accepted, hello: ClientHello) -> tuple[str, int]:
        """Host and port, on which everything that the client has said so far agrees."""
        if accepted.tunnel is None and accepted.dialled is None:
            reason = "TLS to the proxy itself is not spoken; it is reached by http:// and asked by CONNECT"
            raise _refuse(accepted, _HANDSHAKE_FAILURE, Code.UNSUPPORTED, reason)
        if hello.server_name is None:
            reason = "TLS must name its server (SNI); an address is no name"
            raise _refuse(accepted, _UNRECOGNIZED_NAME, Code.MALFORMED, reason)
        if accepted.tunnel is None:
            # The address that was dialled says nothing about the name, and is not where the call goes.
            return hello.server_name, accepted.dialled.port if accepted.dialled is not None else _HTTPS
        host, port = accepted.tunnel
        if hello.server_name != host:
            reason = "TLS names another server than CONNECT did"
            raise _refuse(accepted, _UNRECOGNIZED_NAME, Code.MISDIRECTED, reason, hello.server_name, port)
        return host, port

    async def _let_through(self, accepted: Accepted, hello: ClientHello, host: EgressHost, port: int) -> None:
        if hello.ech:
            reason = (
                "the name may be another's (an encrypted hello), so the connection is not let through unread"
            )
            raise _refuse(accepted, _ACCESS_DENIED, Code.UNSUPPORTED, reason, host.host, port)
        listener = "transparent" if accepted.tunnel is None else "proxy"
        caller = replace(accepted.caller(listener), dialled=f"{host.host}:{port}")
        try:
            await self._splice(accepted, caller, host)
        except Refused as refused:
            answered = _refuse(accepted, _ACCESS_DENIED, Code(refused.code), refused.reason, host.host, port)
            answered.details["recorded"] = True
            raise answered from refused


def _judge(seen: bytes) -> ClientHello | NotHello | int:
    found = read_hello(seen)
    return found.needed if isinstance(found, Partial) else found


def _refuse(
    accepted: Accepted, alert: int, code: Code, reason: str, name: str | None = None, port: int = 0
) -> Refused:
    """Answers with a fatal alert, in a record of its own."""
    with contextlib.suppress(OSError):
        accepted.sock.recv(MAX_BYTES)  # else the kernel would reset what it has not delivered
    last_word(accepted.sock, b"\x15\x03\x03\x00\x02\x02" + bytes([alert]))
    # For the record: the name that was asked for, rather than an address.
    dialled = {} if name is None else {"dialled": f"{name}:{port}"}
    return Refused(code, reason, answered=True, **dialled)
