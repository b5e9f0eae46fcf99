"""Strict framing over what an HTTP/1 parser let through (RFC 9112): a head that every hop reads the same way, or none.

Parsers are lenient in ways that smuggle requests: ``Transfer-Encoding: gzip, chunked``, HTTP/1.0 with chunks, headers
with ``_`` that some servers take for ``-``, an absolute target that names another host than ``Host``: all refused.

An offer to go on in HTTP/2 (``Upgrade: h2c``) is one that a server may ignore (RFC 9110, section 7.8), and some clients
make it with every request: it is left out of the head, and whoever answers ends the connection, so that nobody has to
say what the bytes after it are. No other protocol can be changed to.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from taskgrant.model.call import Head, Malformed
from taskgrant.model.codes import Code

MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024
MAX_TARGET_LENGTH = 16 * 1024

_METHOD = re.compile(r"[A-Z]{1,20}")
# RFC 9110, section 5.6.2 (token), without "_".
_NAME = re.compile(rb"[!#$%&'*+.^`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[\x20-\x7e\t]*")
_TARGET = re.compile(r"[\x21-\x7e]+")
_LENGTH = re.compile(r"[0-9]{1,15}")
_AUTHORITY = re.compile(
    r"(?P<host>[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
)
_DEFAULT_PORT = {"http": 80, "https": 443}
_OFFER = ("upgrade", "http2-settings")
_SINGLE = ("content-length", "transfer-encoding", "expect", *_OFFER)


class FramingFault(ValueError):
    """The request's head is not one that every hop would read the same way."""

    def __init__(self, detail: str, code: Code = Code.MALFORMED) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True, slots=True)
class Origin:
    """``/path?query`` (RFC 9112, section 3.2.1)."""

    path: str
    query: str


@dataclass(frozen=True, slots=True)
class Absolute:
    """``http://host:port/path?query`` (section 3.2.2). ``host`` in lower case, an IPv6 address with its brackets."""

    scheme: str
    host: str
    port: int
    path: str
    query: str


def check_head(
    method: str, target: str, version: tuple[int, int], raw_headers: Sequence[tuple[bytes, bytes]]
) -> Head | Malformed:
    """The head with names in lower case, or why it is none. ``version`` is ``(1, 1)`` or ``(1, 0)``. Never raises."""
    try:
        return _check(method, target, version, raw_headers)
    except FramingFault as fault:
        return Malformed(fault.code, str(fault), status=400)


def parse_target(target: str) -> Origin | Absolute:
    """The request target. Raises FramingFault for every other form, for userinfo, for a fragment."""
    if len(target) > MAX_TARGET_LENGTH:
        raise FramingFault("the request target is too long", Code.TOO_LARGE)
    if not _TARGET.fullmatch(target) or "#" in target or "\\" in target:
        raise FramingFault("the request target has a character that must be escaped")
    if target.startswith("/"):
        path, _, query = target.partition("?")
        if path.startswith("//"):
            raise FramingFault("the request target begins with two slashes")
        return Origin(path, query)
    scheme, separator, rest = target.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _DEFAULT_PORT:
        raise FramingFault("the request target is neither a path nor an absolute URL", Code.UNSUPPORTED)
    authority = re.split(r"[/?]", rest, maxsplit=1)[0]
    host, port = parse_authority(authority, _DEFAULT_PORT[scheme])
    path, _, query = rest[len(authority) :].partition("?")
    if path.startswith("//"):
        raise FramingFault("the request target's path begins with two slashes")
    return Absolute(scheme, host, port, path or "/", query)


def parse_authority(authority: str, default_port: int) -> tuple[str, int]:
    """``host[:port]`` in lower case with its port. Raises FramingFault, also for userinfo and a trailing dot."""
    matched = _AUTHORITY.fullmatch(authority)
    if matched is None:
        raise FramingFault("the host is malformed")
    port = int(matched["port"]) if matched["port"] is not None else default_port
    if not 0 < port < 65536:
        raise FramingFault("the port is out of range")
    return matched["host"].lower(), port


def _check(
    method: str, target: str, version: tuple[int, int], raw_headers: Sequence[tuple[bytes, bytes]]
) -> Head:
    if version not in ((1, 0), (1, 1)):
        raise FramingFault("only HTTP/1.1 and HTTP/1.0 are spoken here", Code.UNSUPPORTED)
    if not _METHOD.fullmatch(method):
        raise FramingFault("the method is malformed")
    if method in ("CONNECT", "TRACE"):
        raise FramingFault(f"{method} is not supported", Code.UNSUPPORTED)
    wanted = parse_target(target)
    headers = check_headers(raw_headers)
    by_name: dict[str, list[str]] = {}
    for name, value in headers:
        by_name.setdefault(name, []).append(value)
    _check_host(wanted, version, by_name.get("host", []))
    _check_framing(method, version, by_name)
    if not _opens_websocket(method, version, by_name):
        headers = tuple(pair for pair in headers if pair[0] not in _OFFER)
    return Head(method, wanted.path, wanted.query, headers)


def check_headers(raw_headers: Sequence[tuple[bytes, bytes]]) -> tuple[tuple[str, str], ...]:
    """Names in lower case, values without blanks around them. Raises FramingFault."""
    if len(raw_headers) > MAX_HEADERS:
        raise FramingFault("too many headers", Code.TOO_LARGE)
    if sum(len(name) + len(value) for name, value in raw_headers) > MAX_HEADER_BYTES:
        raise FramingFault("the headers are too large", Code.TOO_LARGE)
    headers: list[tuple[str, str]] = []
    for name, value in raw_headers:
        if not _NAME.fullmatch(name):
            raise FramingFault("a header name has a character that servers treat differently")
        if not _VALUE.fullmatch(value):
            raise FramingFault("a header value has a control character or is not ASCII")
        headers.append((name.decode("ascii").lower(), value.decode("ascii").strip(" \t")))
    return tuple(headers)


def _check_host(wanted: Origin | Absolute, version: tuple[int, int], hosts: list[str]) -> None:
    if len(hosts) > 1 or (not hosts and version == (1, 1)):
        raise FramingFault("there must be exactly one Host header")
    if not hosts:
        return
    default_port = _DEFAULT_PORT[wanted.scheme] if isinstance(wanted, Absolute) else 80
    named = parse_authority(hosts[0], default_port)
    if isinstance(wanted, Absolute) and named != (wanted.host, wanted.port):
        raise FramingFault("the Host header names another host than the request target")


def _check_framing(method: str, version: tuple[int, int], by_name: dict[str, list[str]]) -> None:
    for name in _SINGLE:
        if len(by_name.get(name, ())) > 1:
            raise FramingFault(f"the header {name} appears twice")
    lengths, codings = by_name.get("content-length"), by_name.get("transfer-encoding")
    if lengths is not None and not _LENGTH.fullmatch(lengths[0]):
        raise FramingFault("Content-Length is not a plain number")
    if codings is not None:
        if lengths is not None:
            raise FramingFault("Content-Length and Transfer-Encoding exclude each other")
        if version == (1, 0):
            raise FramingFault("HTTP/1.0 has no Transfer-Encoding")
        if codings[0].lower() != "chunked":
            raise FramingFault("the only Transfer-Encoding is chunked")
    offered = [each.lower() for each in by_name.get("upgrade", ())] == ["h2c"] and version == (1, 1)
    taken = offered or _opens_websocket(method, version, by_name)
    if not taken and any(name in by_name for name in _OFFER):
        raise FramingFault("the protocol of a connection cannot be changed", Code.UNSUPPORTED)
    if (expect := by_name.get("expect")) is not None and expect[0].lower() != "100-continue":
        raise FramingFault("the only expectation is 100-continue", Code.UNSUPPORTED)


def _opens_websocket(method: str, version: tuple[int, int], by_name: dict[str, list[str]]) -> bool:
    """The only change of protocol that a codec may take (RFC 6455, section 4.1), and not one that brings a body."""
    bodiless = "transfer-encoding" not in by_name and by_name.get("content-length", ["0"]) == ["0"]
    options = {
        each.strip(" \t").lower() for value in by_name.get("connection", ()) for each in value.split(",")
    }
    asked = [value.lower() for value in by_name.get("upgrade", ())] == ["websocket"] and "upgrade" in options
    keyed = "sec-websocket-key" in by_name and "sec-websocket-version" in by_name
    alone = "http2-settings" not in by_name and "expect" not in by_name
    return method == "GET" and version == (1, 1) and asked and keyed and bodiless and alone
