"""Which uid owns the client's end of a loopback connection: one exact look-up in the kernel's socket table.

Asks ``sock_diag(7)`` (NETLINK_SOCK_DIAG, ``struct inet_diag_req_v2`` of ``linux/inet_diag.h``) for the socket whose own
address is the client's and whose peer is ours. The kernel falls back to a listening socket, and reports uid 0 and
inode 0 for a client that has closed: both count as not found, and not found is a refusal, never another rule.
"""

import errno
import ipaddress
import os
import socket
import struct

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_ALL_STATES = 0xFFFFFFFF
_NO_COOKIE = b"\xff" * 8
_LISTEN = 10
_NLMSGHDR = struct.Struct("=IHHII")
# family, protocol, ext, pad, states; then struct inet_diag_sockid, whose ports and addresses are big-endian.
_REQUEST = struct.Struct("=BBBBI")
_SOCKID = struct.Struct(">HH16s16s4x8s")
# family, state, timer, retrans; sockid; expires, rqueue, wqueue, uid, inode.
_REPLY_HEAD = struct.Struct("=BBBB")
_REPLY_TAIL = struct.Struct("=IIIII")
_SECONDS = 1.0

Address = tuple[str, int]


def owner(client: Address, server: Address) -> int | None:
    """The uid that owns the socket at ``client`` that is connected to ``server`` (host, port); None when not found."""
    try:
        local, remote = _packed(client[0]), _packed(server[0])
    except ValueError:
        return None
    if len(local) != len(remote):
        return None
    family = socket.AF_INET if len(local) == 4 else socket.AF_INET6
    sockid = _SOCKID.pack(client[1], server[1], local.ljust(16, b"\0"), remote.ljust(16, b"\0"), _NO_COOKIE)
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, _ALL_STATES) + sockid
    header = _NLMSGHDR.pack(_NLMSGHDR.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    try:
        reply = _ask(header + request)
    except OSError:
        return None
    return _uid(reply, (client[1], server[1], local, remote))


def _ask(message: bytes) -> bytes:
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG
    ) as kernel:
        kernel.settimeout(_SECONDS)
        kernel.sendto(message, (0, 0))
        reply, sender = kernel.recvfrom(8192)
    if sender[0] != 0:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))  # not from the kernel
    return reply


def _uid(reply: bytes, wanted: tuple[int, int, bytes, bytes]) -> int | None:
    sockid_at = _NLMSGHDR.size + _REPLY_HEAD.size
    tail_at = sockid_at + 48
    if len(reply) < tail_at + _REPLY_TAIL.size:
        return None
    _, kind, _, _, _ = _NLMSGHDR.unpack_from(reply)
    if kind != _SOCK_DIAG_BY_FAMILY:
        return None  # NLMSG_ERROR: there is no such socket
    family, state, _, _ = _REPLY_HEAD.unpack_from(reply, _NLMSGHDR.size)
    own_port, peer_port, own, peer, _ = _SOCKID.unpack_from(reply, sockid_at)
    size = 4 if family == socket.AF_INET else 16
    found = (own_port, peer_port, _plain(own[:size]), _plain(peer[:size]))
    _, _, _, uid, inode = _REPLY_TAIL.unpack_from(reply, tail_at)
    if found != wanted or state == _LISTEN or inode == 0:
        return None
    return int(uid)


def _packed(host: str) -> bytes:
    return _plain(ipaddress.ip_address(host.partition("%")[0]).packed)


def _plain(packed: bytes) -> bytes:
    """An IPv4 address in the form of IPv6 (``::ffff:…``, a dual-stack socket) as IPv4."""
    return packed[12:] if len(packed) == 16 and packed.startswith(b"\0" * 10 + b"\xff\xff") else packed
