"""What an agent could try to get round the sidecar: Python, told what came of it on standard output.

``python attempts.py NAME``: prints ``sent`` when the kernel took what was to go out, an answer that came, or the name
of the error. Standard library only.
"""

import ctypes
import errno
import http.client
import os
import socket
import struct
import sys

ELSEWHERE, ELSEWHERE6, METADATA = "192.0.2.1", "2001:db8::1", "169.254.169.254"
SECONDS = 2.0
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
MSG_FASTOPEN = 0x20000000
SO_MARK, SO_BINDTODEVICE = 36, 25
IP_TRANSPARENT = 19
IPPROTO_UDPLITE, IPPROTO_SCTP, IPPROTO_MPTCP = 136, 132, 262


def tcp(host: str, port: int, *, bind_to: bytes = b"", source: int = 0) -> str:
    """``taskgrant``, when the sidecar answers."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        if bind_to:
            sock.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, bind_to)
        if source:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("", source))
        sock.settimeout(SECONDS)
        sock.connect((host, port))
        return ask(sock)


def ask(sock: socket.socket) -> str:
    sock.sendall(b"GET / HTTP/1.1\r\nHost: nobody.invalid\r\n\r\n")
    answer = http.client.HTTPResponse(sock)
    answer.begin()
    return answer.headers.get("server") or "somebody"


def send(
    host: str,
    port: int,
    kind: int = socket.SOCK_DGRAM,
    protocol: int = 0,
    *,
    source: int = 0,
    broadcast: bool = False,
    bind_to: bytes = b"",
) -> str:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, kind, protocol) as sock:
        sock.settimeout(SECONDS)
        if broadcast:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if bind_to:
            sock.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, bind_to)
        if source:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("", source))
        sock.connect((host, port))
        echo = bytes([8 if family == socket.AF_INET else 128, 0, 0xF7, 0xFF, 0, 0, 0, 0])
        sock.send(echo)
        sock.send(echo)  # an error that came back meanwhile is told now
        return "sent"


def packet() -> str:
    """A whole frame, past the rules of IP."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)) as sock:
        sock.bind(("eth0", 0))
        sock.send(bytes(60))
        return "sent"


def raw() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        sock.sendto(bytes(40), (ELSEWHERE, 0))
        return "sent"


def option(level: int, name: int) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(level, name, 1)
        return send(ELSEWHERE, 443)


def become(uid: int) -> str:
    os.setuid(uid)
    return send(ELSEWHERE, 443)


def user_namespace(flags: int, attempt: str) -> str:
    """As the sidecar's uid, in a user namespace where that is what ours is called."""
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWUSER | flags) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    with open("/proc/self/setgroups", "w") as file:
        file.write("deny")
    for name, own in (("uid_map", uid), ("gid_map", gid)):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(f"1337 {own} 1")
    assert os.getuid() == 1337
    return ATTEMPTS[attempt]()


def fast_open() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.sendto(b"GET / HTTP/1.1\r\nHost: nobody.invalid\r\n\r\n", MSG_FASTOPEN, (ELSEWHERE, 80))
        sock.settimeout(SECONDS)
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        return answer.headers.get("server") or "somebody"


def multipath() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP) as sock:
        sock.settimeout(SECONDS)
        sock.connect((ELSEWHERE, 80))
        return ask(sock)


def mapped() -> str:
    """IPv4 by a socket of IPv6."""
    return tcp(f"::ffff:{ELSEWHERE}", 80)


def others() -> str:
    """Another process of this machine: none of them is ours to end."""
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid() and os.stat(f"/proc/{name}").st_uid != os.getuid():
            os.kill(int(name), 0)
            return f"may end {name}"
    return "sees nobody"


def take_descriptors() -> str:
    """``pidfd_open`` and ``pidfd_getfd`` of every process that can be seen and is not of our uid."""
    libc = ctypes.CDLL(None, use_errno=True)
    told = set()
    for name in os.listdir("/proc"):
        if not name.isdigit() or os.stat(f"/proc/{name}").st_uid == os.getuid():
            continue
        process = libc.syscall(434, int(name), 0)
        for number in range(16) if process >= 0 else ():
            taken = libc.syscall(438, process, number, 0)
            told.add("taken" if taken >= 0 else errno.errorcode[ctypes.get_errno()])
    return " ".join(sorted(told)) or "sees nobody"


def unix(path: str) -> str:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.sendall(b"GET /v1/tasks HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return sock.recv(100).decode().partition("\r\n")[0]


def rules() -> str:
    """Asks the kernel, over nfnetlink, to delete every table of nftables."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as kernel:
        begin = struct.pack("=IHHIIBBH", 20, 16, 1, 0, 0, 0, 0, socket.htons(10))
        delete = struct.pack("=IHHIIBBH", 20, (10 << 8) | 2, 5, 1, 0, 1, 0, 0)
        end = struct.pack("=IHHIIBBH", 20, 17, 1, 2, 0, 0, 0, socket.htons(10))
        kernel.send(begin + delete + end)
        kernel.settimeout(SECONDS)
        reply = kernel.recv(4096)
        code = -struct.unpack_from("=i", reply, 16)[0]
        return errno.errorcode.get(code, "done")


ATTEMPTS = {
    "tcp4": lambda: tcp(ELSEWHERE, 80),
    "tcp4-high": lambda: tcp(ELSEWHERE, 50000),
    "tcp6": lambda: tcp(ELSEWHERE6, 80),
    "tcp-mapped": mapped,
    "tcp-bound-to-device": lambda: tcp(ELSEWHERE, 80, bind_to=b"eth0"),
    "tcp-fast-open": fast_open,
    "mptcp": multipath,
    "udp-bound-to-device": lambda: send(ELSEWHERE, 443, bind_to=b"eth0"),
    "dns-bound-to-device": lambda: send(ELSEWHERE, 53, bind_to=b"eth0"),
    "udp4": lambda: send(ELSEWHERE, 443),
    "udp6": lambda: send(ELSEWHERE6, 443),
    "udp-broadcast": lambda: send("255.255.255.255", 443, broadcast=True),
    "udp-multicast": lambda: send("224.0.0.251", 5353),
    "udp-lite": lambda: send(ELSEWHERE, 443, protocol=IPPROTO_UDPLITE),
    "sctp": lambda: send(ELSEWHERE, 443, kind=socket.SOCK_STREAM, protocol=IPPROTO_SCTP),
    "dns-udp": lambda: send(ELSEWHERE, 53),
    "dns-tcp": lambda: tcp(ELSEWHERE, 53),
    "icmp4": lambda: send(ELSEWHERE, 0, protocol=socket.IPPROTO_ICMP),
    "icmp6": lambda: send(ELSEWHERE6, 0, protocol=socket.IPPROTO_ICMPV6),
    "raw": raw,
    "packet": packet,
    "mark": lambda: option(socket.SOL_SOCKET, SO_MARK),
    "ip-transparent": lambda: option(socket.IPPROTO_IP, IP_TRANSPARENT),
    "setuid": lambda: become(1337),
    "setuid-root": lambda: become(0),
    "user-namespace-udp": lambda: user_namespace(0, "udp4"),
    "user-namespace-tcp": lambda: user_namespace(0, "tcp4"),
    "user-namespace-packet": lambda: user_namespace(0, "packet"),
    "user-and-net-namespace": lambda: user_namespace(CLONE_NEWNET, "udp4"),
    "rules": rules,
    "kill": others,
    "take-descriptors": take_descriptors,
    "own-port4": lambda: tcp("127.0.0.1", 15001),
    "own-port6": lambda: tcp("::1", 15001),
    "own-port-mapped": lambda: tcp("::ffff:127.0.0.1", 15001),
    "own-port-by-address": lambda: tcp("198.51.100.2", 15001),
    "own-dns-port": lambda: tcp("127.0.0.1", 15053),
    "gateway": lambda: tcp("127.0.0.1", 15002),
    "admin": lambda: tcp("127.0.0.1", 15090),
    "metadata-tcp": lambda: tcp(METADATA, 80),
    "metadata-udp": lambda: send(METADATA, 80),
}


def main(name: str, *arguments: str) -> str:
    try:
        if name == "unix":
            return unix(*arguments)
        if name == "tcp-from":
            source, host, port = arguments
            return tcp(host, int(port), source=int(source))
        if name == "udp-from":
            source, port = arguments
            return send(ELSEWHERE, int(port), source=int(source))
        return str(ATTEMPTS[name]())
    except TimeoutError:
        return "TIMEOUT"
    except http.client.HTTPException as error:
        return type(error).__name__
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))


if __name__ == "__main__":
    print(main(*sys.argv[1:]))  # noqa: T201 - that is what it is for
