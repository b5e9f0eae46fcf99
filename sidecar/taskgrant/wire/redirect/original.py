"""Whom a redirected connection was for: ``SO_ORIGINAL_DST`` of both families (netfilter's ``nf_conntrack``).

A connection that was not redirected, because somebody dialled the listener itself, gives the listener's own address or
ENOENT: there is nobody that it was for.
"""

import errno
import ipaddress
import socket
import struct
from typing import NamedTuple

_SO_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h; IP6T_SO_ORIGINAL_DST has the same number
_SOCKADDR_IN = struct.Struct("=2xH4s8x")
_SOCKADDR_IN6 = struct.Struct("=2xH4x16s4x")
#: Addresses of clouds' metadata services that are not link-local.
_METADATA = frozenset(
    ipaddress.ip_address(address)
    for address in ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")
)


class Dialled(NamedTuple):
    """An address as text (IPv4 never in the form of IPv6), and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def original_dst(accepted: socket.socket) -> Dialled | None:
    """What the client of this accepted TCP connection has dialled; None when it dialled the listener itself.

    Raises ``OSError`` when the connection is gone.
    """
    own = accepted.getsockname()
    # An IPv4 client of a dual-stack listener is known to IPv4's connection tracking only.
    mapped = accepted.family == socket.AF_INET6 and _address(own[0]).version == 4
    try:
        if accepted.family == socket.AF_INET or mapped:
            raw = accepted.getsockopt(socket.IPPROTO_IP, _SO_ORIGINAL_DST, _SOCKADDR_IN.size)
            port, packed = _SOCKADDR_IN.unpack(raw)
        else:
            raw = accepted.getsockopt(socket.IPPROTO_IPV6, _SO_ORIGINAL_DST, _SOCKADDR_IN6.size)
            port, packed = _SOCKADDR_IN6.unpack(raw)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOPROTOOPT):
            return None
        raise
    found = Dialled(str(_address(str(ipaddress.ip_address(packed)))), socket.ntohs(port))
    return None if found == (str(_address(own[0])), own[1]) else found


def objection(dialled: Dialled) -> str | None:
    """Why nothing is to be found at an address, whatever name goes with it; None if there may be something."""
    address = _address(dialled.host)
    if (reason := everywhere(address)) is not None:
        return reason
    return "an address of this machine was dialled" if _is_own(address) else None


def everywhere(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str | None:
    """The same, as far as it is so on every machine."""
    if address.is_loopback or address.is_unspecified:
        return "a loopback address was dialled"
    if address.is_link_local or address in _METADATA:
        return "a link-local or metadata address was dialled"
    if address.is_multicast:
        return "a multicast address was dialled"
    return None


def _is_own(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Only an address of this network namespace can be bound to."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError as error:
        return error.errno != errno.EADDRNOTAVAIL
    return True


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """IPv4 in the form of IPv6 (``::ffff:…``) as IPv4, and without a zone."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
