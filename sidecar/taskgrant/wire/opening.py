"""What a connection's first bytes say that it speaks: TLS, HTTP/1, or something else. Pure.

Decided as soon as it can be, and never by what a later byte might still say: ``16 03`` begins a TLS record that holds a
handshake (RFC 8446, section 5.1), a token in capitals and a space an HTTP/1 request (RFC 9112, section 3), of which
CONNECT is a kind of its own: what follows it is another protocol. HTTP/2's preface is none: its ``PRI`` is no method.
"""

import re
from enum import StrEnum

#: Bytes that decide in every case.
ENOUGH = 24

_METHOD = re.compile(rb"[A-Z]{1,20}")
_TLS = b"\x16\x03"
_APART = {b"PRI": "http2", b"CONNECT": "connect"}


class Opening(StrEnum):
    TLS = "tls"
    HTTP = "http"
    CONNECT = "connect"
    HTTP2 = "http2"
    UNKNOWN = "unknown"


def classify(seen: bytes) -> Opening | None:
    """None: more bytes are needed (never at ``ENOUGH``)."""
    if not seen:
        return None
    if seen.startswith(_TLS):
        return Opening.TLS
    if seen == _TLS[:1]:
        return None
    method, space, _ = seen[:ENOUGH].partition(b" ")
    if not _METHOD.fullmatch(method):
        return Opening.UNKNOWN
    if not space:
        return None if len(seen) < ENOUGH else Opening.UNKNOWN
    return Opening(_APART.get(method, Opening.HTTP))
