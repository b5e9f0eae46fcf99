"""From a request that a parser let through to what it means to us: head, destination and handle, or a refusal. Pure.

=========== ====================================================== ==========================================
listener    target                                                 destination
=========== ====================================================== ==========================================
gateway     ``/<server>/rest?query`` (origin-form)                 ``gateway``, the server's name; path ``/rest``
proxy       ``http://host[:port]/path`` (absolute-form)            ``absolute``, ``host[:port]`` in lower case
transparent ``/path`` (origin-form), a server's name in ``Host``   ``transparent``, ``host[:port]`` in lower case
transparent ``http://host[:port]/path`` (absolute-form)            as of the proxy
``inside``  ``/path`` (origin-form), the same server in ``Host``   ``connect`` or ``transparent``, ``host[:port]``
=========== ====================================================== ==========================================

The gateway is dialled by loopback names only (a page that was rebound to 127.0.0.1 sends its own name), and by no
page of another origin. Where a connection was redirected, ``Host`` says which server it is for, and must not
contradict what was dialled: the port is the same, and so is the address if it names one. Inside of a tunnel or of TLS,
each request names the server that they were made for.

A task's handle is presented once, in ``Taskgrant-Task``, or as proxy credentials: ``Bearer <handle>`` or ``Basic`` of
``task:<handle>``. It never reaches a tool.
"""

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal
from urllib.parse import urlsplit

from taskgrant.errors import Refused
from taskgrant.model.call import Head, Malformed
from taskgrant.model.catalogue import DEFAULT_PORTS
from taskgrant.model.codes import Code
from taskgrant.model.ports import Destination
from taskgrant.protocols.framing import (
    Absolute,
    FramingFault,
    Origin,
    check_head,
    parse_authority,
    parse_target,
)
from taskgrant.wire.redirect.original import Dialled

_HANDLE = "taskgrant-task"
_PROXY_CREDENTIALS = "proxy-authorization"
_MAX_HANDLE = 512

Way = Literal["gateway", "absolute", "transparent"]


@dataclass(frozen=True, slots=True)
class Inside:
    """The server that CONNECT, or the client's TLS, has named: the one that every request of the connection is for."""

    way: Literal["connect", "transparent"]
    scheme: Literal["http", "https"]
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Intake:
    head: Head
    destination: Destination
    handle: str | None


def read(
    way: Way,
    port: int,
    method: str,
    target: str,
    version: tuple[int, int],
    raw_headers: Sequence[tuple[bytes, bytes]],
    dialled: Dialled | None = None,
    inside: Inside | None = None,
) -> Intake:
    """``dialled`` is whom a redirected connection was for, ``port`` the listener's own.

    Raises ``errors.Refused``: malformed, unsupported, too_large, forbidden (Host, Origin), misdirected, handle_invalid.
    """
    head = check_head(method, target, version, raw_headers)
    if isinstance(head, Malformed):
        raise Refused(head.code, head.detail)
    wanted = parse_target(target)
    if inside is not None:
        if isinstance(wanted, Absolute):
            raise Refused(Code.UNSUPPORTED, "a tunnel leads to one server: ask it for /…")
        _check_inside(head, inside)
        name = _name(inside.host, inside.port, inside.scheme)
        destination = Destination(inside.way, name, inside.scheme)
    elif way == "gateway":
        if isinstance(wanted, Absolute):
            raise Refused(
                Code.UNSUPPORTED, "this is the gateway: ask for /<server>/…, or use the proxy's port"
            )
        _check_local(head, port)
        name, slash, rest = head.path[1:].partition("/")
        destination = Destination("gateway", name)
        head = replace(head, path="/" + rest if slash else "/")
    elif dialled is not None and isinstance(wanted, Origin):
        destination = Destination("transparent", _named(head, dialled))
    else:
        if not isinstance(wanted, Absolute) or wanted.scheme != "http":
            raise Refused(
                Code.UNSUPPORTED, "this is the proxy: ask for http://host/…, or use the gateway's port"
            )
        destination = Destination("absolute", _name(wanted.host, wanted.port))
    handle = presented_handle(head)
    headers = tuple(pair for pair in head.headers if pair[0] not in (_HANDLE, _PROXY_CREDENTIALS))
    return Intake(replace(head, headers=headers), destination, handle)


@lru_cache(maxsize=64)  # each request names the same one or two
def is_loopback(host: str) -> bool:
    """``localhost`` or a loopback address; never a name that has to be resolved."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _named(head: Head, dialled: Dialled) -> str:
    """The server that Host names, which is the one that was dialled."""
    try:
        host, port = parse_authority(head.get("host") or "", 80)
    except FramingFault as fault:
        raise Refused(Code.MALFORMED, str(fault)) from fault
    if port != dialled.port:
        raise Refused(Code.MALFORMED, "the Host header names another port than was dialled")
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return _name(host, port)
    if address != ipaddress.ip_address(dialled.host):
        raise Refused(Code.MALFORMED, "the Host header names another address than was dialled")
    return _name(host, port)


def _check_inside(head: Head, inside: Inside) -> None:
    try:
        named = parse_authority(head.get("host") or "", DEFAULT_PORTS[inside.scheme])
    except FramingFault as fault:
        raise Refused(Code.MALFORMED, str(fault)) from fault
    if named != (inside.host, inside.port):
        raise Refused(
            Code.MISDIRECTED, "the Host header names another server than the connection was made for"
        )


def _name(host: str, port: int, scheme: str = "http") -> str:
    return host if port == DEFAULT_PORTS[scheme] else f"{host}:{port}"


def _check_local(head: Head, port: int) -> None:
    try:
        host, named_port = parse_authority(head.get("host") or "", 80)
    except FramingFault as fault:
        raise Refused(Code.MALFORMED, str(fault)) from fault
    if not is_loopback(host) or named_port != port:
        raise Refused(Code.FORBIDDEN, "the gateway is called by its loopback address and port only")
    for name, value in head.headers:
        if name == "origin" and not _is_local_origin(value):
            raise Refused(Code.FORBIDDEN, "the gateway serves no page of another origin")


def _is_local_origin(value: str) -> bool:
    try:
        origin = urlsplit(value)
        return origin.scheme in ("http", "https") and is_loopback(origin.hostname or "")
    except ValueError:
        return False


def presented_handle(head: Head) -> str | None:
    """A task's handle, where a head has one. Raises ``errors.Refused`` (handle_invalid)."""
    presented = [value for name, value in head.headers if name == _HANDLE]
    presented += [_credentials(value) for name, value in head.headers if name == _PROXY_CREDENTIALS]
    if not presented:
        return None
    if head.count(_HANDLE) > 1 or head.count(_PROXY_CREDENTIALS) > 1:
        raise _invalid("a task's handle is presented once")
    first = presented[0]
    if not all(hmac.compare_digest(first.encode(), other.encode()) for other in presented):
        raise _invalid("two task handles are presented, and they differ")
    if not 0 < len(first) <= _MAX_HANDLE:
        raise _invalid("the task handle has an impossible length")
    return first


def _credentials(value: str) -> str:
    scheme, _, rest = value.partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer":
        return rest
    if scheme.lower() == "basic":
        try:
            user, colon, password = base64.b64decode(rest, validate=True).decode("ascii").partition(":")
        except (binascii.Error, ValueError) as error:
            raise _invalid("the proxy credentials cannot be read") from error
        if user == "task" and colon:
            return password
    raise _invalid("proxy credentials are 'Bearer <handle>', or 'Basic' of task:<handle>")


def _invalid(reason: str) -> Refused:
    return Refused(Code.HANDLE_INVALID, reason)


def one_handle(outside: str | None, inside: str | None) -> str | None:
    """The handle of a tunnel and of a request in it. Raises ``errors.Refused`` (handle_invalid)."""
    if outside is not None and inside is not None and not hmac.compare_digest(outside, inside):
        raise Refused(Code.HANDLE_INVALID, "two task handles are presented, and they differ")
    return outside if inside is None else inside
