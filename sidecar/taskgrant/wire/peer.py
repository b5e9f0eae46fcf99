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
from collections.abc import Iterator

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_NLM_F_DUMP_INTR = 0x10
_NLM_F_DUMP = 0x300
_NLMSG_DONE = 3
_ALL_STATES = 0xFFFFFFFF
_NO_COOKIE = b"\xff" * 8
_LISTEN = 10
_STANDING = (1, 8)  # of ours: established; the client has ended its side
_OPEN_STATES = (
    1 << 1 | 1 << 4 | 1 << 5
)  # of the client's: established; it has ended its side and we have not (FIN_WAIT)
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


def owner_of_redirected(accepted: socket.socket, dialled: Address) -> int | None:
    """The uid that owns the other end of a connection that was redirected here from ``dialled``.

    The kernel gives a redirected connection another source port when its own is still known for a connection to
    somewhere else; then there is no socket of the client at the address that we see. Whoever it is has a socket that is
    connected to ``dialled`` from that host, though, as long as the connection stands: if all of those are one uid's, it
    is that.
    """
    client = accepted.getpeername()[:2]
    if (exact := owner(client, dialled)) is not None:
        return exact
    try:
        owners = _owners(client[0], dialled)
    except (OSError, ValueError):
        return None
    # A client that has reset the connection meanwhile is not among them.
    state = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return owners.pop() if len(owners) == 1 and state in _STANDING else None


def udp_owners(client: Address) -> frozenset[int]:
    """The uids of the UDP sockets that can have sent from ``client``, connected or not; none when there is none now."""
    try:
        local = _packed(client[0])
        families = (socket.AF_INET, socket.AF_INET6) if len(local) == 4 else (socket.AF_INET6,)
        return frozenset(uid for family in families for uid in _udp(family, local, client[1]))
    except (OSError, ValueError):
        return frozenset()


def _udp(family: int, local: bytes, wanted: int) -> Iterator[int]:
    sockid = _SOCKID.pack(wanted, 0, bytes(16), bytes(16), _NO_COOKIE)
    request = _REQUEST.pack(family, socket.IPPROTO_UDP, 0, 0, _ALL_STATES) + sockid
    header = _NLMSGHDR.pack(
        _NLMSGHDR.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0
    )
    size = 4 if family == socket.AF_INET else 16
    for message in _dump(header + request):
        sockid_at = _NLMSGHDR.size + _REPLY_HEAD.size
        port, _, own, _, _ = _SOCKID.unpack_from(message, sockid_at)
        _, _, _, uid, inode = _REPLY_TAIL.unpack_from(message, sockid_at + 48)
        if port == wanted and inode and (_plain(own[:size]) == local or not any(own[:size])):
            yield int(uid)


def _owners(client: str, server: Address) -> set[int | None]:
    """Of every socket that is connected from a host to an address; None among them for one that is closed."""
    local, remote = _packed(client), _packed(server[0])
    sockid = _SOCKID.pack(0, server[1], bytes(16), bytes(16), _NO_COOKIE)
    found: set[int | None] = set()
    # A socket of IPv6 may speak IPv4.
    for family in (socket.AF_INET, socket.AF_INET6) if len(local) == 4 else (socket.AF_INET6,):
        request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, _OPEN_STATES) + sockid
        header = _NLMSGHDR.pack(
            _NLMSGHDR.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0
        )
        for message in _dump(header + request):
            sockid_at = _NLMSGHDR.size + _REPLY_HEAD.size
            _, port, own, peer, _ = _SOCKID.unpack_from(message, sockid_at)
            size = 4 if message[_NLMSGHDR.size] == socket.AF_INET else 16
            if (port, _plain(own[:size]), _plain(peer[:size])) == (server[1], local, remote):
                _, _, _, uid, inode = _REPLY_TAIL.unpack_from(message, sockid_at + 48)
                found.add(int(uid) if inode else None)
    return found


def _dump(message: bytes) -> Iterator[bytes]:
    """Each socket's message. Raises OSError for an answer that is not the kernel's, or not whole."""
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG
    ) as kernel:
        kernel.settimeout(_SECONDS)
        kernel.sendto(message, (0, 0))
        while True:
            reply, sender = kernel.recvfrom(1 << 16)
            if sender[0] != 0:
                raise OSError(errno.EPERM, os.strerror(errno.EPERM))
            while len(reply) >= _NLMSGHDR.size:
                length, kind, flags, _, _ = _NLMSGHDR.unpack_from(reply)
                if kind == _NLMSG_DONE:
                    return
                if kind != _SOCK_DIAG_BY_FAMILY or flags & _NLM_F_DUMP_INTR or length < _NLMSGHDR.size:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                yield reply[:length]
                reply = reply[(length + 3) & ~3 :]


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
