"""TLS of the agent, on a real listener: who it is for is said three times, and must be the same each time."""

import asyncio
import itertools
import json
import os
import re
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from taskgrant.errors import Refused
from taskgrant.identity.leaves import LeafContexts
from taskgrant.identity.pod_ca import PodCa
from taskgrant.model.call import Answer, Caller, Refusal
from taskgrant.model.codes import Code
from taskgrant.model.egress import EgressHost, EgressHosts, Mode
from taskgrant.model.ports import Exchange
from taskgrant.wire.config import ListenConfig
from taskgrant.wire.dispatching import DispatchingListener
from taskgrant.wire.intercept import Interceptor
from taskgrant.wire.listener import Accepted
from taskgrant.wire.opening import Opening
from taskgrant.wire.redirect.original import Dialled
from tests.protocols.test_tls import message, records, sni
from tests.wire.http2.client import Client
from tests.wire.support import SOON, SystemClock

SPLICED = EgressHosts((EgressHost("pinned.example", Mode.SPLICE),))
KNOWN = {("a.example", 443), ("b.example", 443), ("b.example", 8443)}


@dataclass
class World:
    """A listener that answers whatever it is asked with the server that it was asked for."""

    trust: ssl.SSLContext
    contexts: LeafContexts
    dialled: Dialled | None = None
    port: int = 0
    served: list[Exchange] = field(default_factory=list)
    refused: list[tuple[Caller, Refusal]] = field(default_factory=list)
    minted: list[str] = field(default_factory=list)
    spliced: list[str] = field(default_factory=list)
    told: asyncio.Event = field(default_factory=asyncio.Event)

    def context(self, host: str, port: int) -> ssl.SSLContext:
        self.admit(host, port)
        self.minted.append(host)
        return self.contexts.of(host)

    def admit(self, host: str, port: int) -> None:
        if (host, port) not in KNOWN and host != "pinned.example":
            raise Refused(Code.UNKNOWN_SERVER, "unknown")

    async def splice(self, accepted: Accepted, caller: Caller, host: EgressHost) -> None:
        self.spliced.append(caller.dialled)
        self.refused.append((caller, Refusal(Code.NO_TASK, "no task")))  # who splices has it on record
        self.told.set()
        raise Refused(Code.NO_TASK, "no task")

    def on_refused(self, caller: Caller, refusal: Refusal) -> None:
        self.refused.append((caller, refusal))
        self.told.set()

    async def serve(self, exchange: Exchange) -> None:
        self.served.append(exchange)
        destination = exchange.destination
        named = f"{destination.way} {destination.scheme} {destination.name}"
        await exchange.answer(Answer(200, "text/plain", named.encode()))

    @property
    def codes(self) -> list[str]:
        return [refusal.code for _, refusal in self.refused]

    def dial(self, tunnel: str | None) -> socket.socket:
        """A connection, inside a tunnel if one is named."""
        raw = socket.create_connection(("127.0.0.1", self.port), SOON)
        if tunnel is not None:
            raw.sendall(f"CONNECT {tunnel} HTTP/1.1\r\nProxy-Authorization: Bearer h\r\n\r\n".encode())
            head = raw.recv(65536)
            if not head.startswith(b"HTTP/1.1 200 "):
                raw.close()
                raise ConnectionRefusedError(head)
        return raw

    def ask(self, tunnel: str | None, name: str | None, host: str, target: str = "/") -> tuple[int, bytes]:
        """One request over TLS: status and body. Raises what the client would see."""
        with self.trust_for(name).wrap_socket(self.dial(tunnel), server_hostname=name) as tls:
            tls.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: tls.recv(65536), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head[9:12]), body

    def trust_for(self, name: str | None) -> ssl.SSLContext:
        self.trust.check_hostname = name is not None
        return self.trust

    def say(self, tunnel: str | None, data: bytes, end: bool = False) -> bytes:
        """Bytes instead of TLS: everything that comes back."""
        with self.dial(tunnel) as raw:
            raw.sendall(data)
            if end:
                raw.shutdown(socket.SHUT_WR)
            answer = bytearray()
            try:
                while chunk := raw.recv(65536):
                    answer += chunk
            except ConnectionResetError:
                answer += b"<reset>"
            return bytes(answer)


class _Redirected(DispatchingListener):
    """As if the kernel had redirected what comes in."""

    dialled: Dialled

    def _admit(self, sock: socket.socket) -> Accepted:
        return Accepted(sock, os.getuid(), self.dialled, "")


@asynccontextmanager
async def intercepting(dialled: Dialled | None = None, head_timeout: float = SOON) -> AsyncIterator[World]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        clock = SystemClock()
        ca = PodCa.open(Path(directory), clock)
        world = World(
            ssl.create_default_context(cadata=ca.certificate.decode()), LeafContexts(ca, clock), dialled
        )
        interceptor = Interceptor(world.context, head_timeout, SPLICED, world.splice)
        kind = DispatchingListener if dialled is None else _Redirected
        listener = kind(
            "proxy", "127.0.0.1:0", world.serve, ListenConfig(head_timeout=head_timeout),
            frozenset({os.getuid()}), world.on_refused, {Opening.TLS: interceptor.speak}, world.admit,
        )  # fmt: skip
        if isinstance(listener, _Redirected) and dialled is not None:
            listener.dialled = dialled
        _, world.port = await listener.start()
        try:
            yield world
        finally:
            await asyncio.wait_for(listener.stop(0.1), SOON)


REDIRECTED = Dialled("192.0.2.1", 443)


@pytest.mark.parametrize(
    ("tunnel", "name", "host"),
    list(
        itertools.product(
            ("a.example:443", "b.example:443", "b.example:8443"),
            ("a.example", "b.example", "x.example", None),
            ("a.example", "b.example", "b.example:8443", "a.example:443", "x.example"),
        )
    ),
)
async def test_only_what_is_said_three_times_is_served(tunnel: str, name: str | None, host: str) -> None:
    authority, _, port = tunnel.partition(":")
    agrees = name == authority
    async with intercepting() as world:
        if not agrees:
            with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized"):
                await asyncio.to_thread(world.ask, tunnel, name, host)
            assert (world.codes, world.minted) == (["malformed" if name is None else "misdirected"], [])
            assert world.served == []
            return
        status, body = await asyncio.to_thread(world.ask, tunnel, name, host)
        served = f"{authority}:{port}" if port != "443" else authority
        if host in (served, f"{authority}:{port}"):
            assert (status, body) == (200, f"connect https {served}".encode())
            (exchange,) = world.served
            assert (exchange.caller.handle, exchange.caller.dialled) == ("h", tunnel)
        else:
            assert (status, json.loads(body)["code"], world.codes) == (421, "misdirected", ["misdirected"])
            assert world.served == []


@pytest.mark.parametrize(
    ("name", "host", "expected"),
    [
        ("a.example", "a.example", "200"),
        ("a.example", "b.example", "421"),
        ("a.example", "a.example:8443", "421"),
        ("b.example", "a.example", "421"),
        ("x.example", "x.example", "unknown_server"),
        (None, "a.example", "malformed"),
    ],
)
async def test_redirected_connections(name: str | None, host: str, expected: str) -> None:
    async with intercepting(REDIRECTED) as world:
        if expected.isdecimal():
            status, body = await asyncio.to_thread(world.ask, None, name, host)
            assert str(status) == expected
            assert status != 200 or body == b"transparent https a.example"
            return
        with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized"):
            await asyncio.to_thread(world.ask, None, name, host)
        assert (world.codes, world.minted, world.served) == ([expected], [], [])


@pytest.mark.parametrize("offered", [["h2"], ["http/1.1", "h2"], ["h2", "http/1.1"]])
async def test_a_client_that_offers_http2_speaks_it(offered: list[str]) -> None:
    async with intercepting(REDIRECTED) as world:
        world.trust.set_alpn_protocols(offered)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", world.port, ssl=world.trust, server_hostname="a.example"
        )
        client = Client(reader, writer, "https", "a.example")
        answered = await client.get("/")
        assert (answered.status, answered.text) == (200, "transparent https a.example")
        answered = await client.get("/", authority="b.example")
        assert (answered.status, json.loads(answered.body)["code"]) == (421, "misdirected")
        answered = await client.get("/", authority="a.example:443")
        assert answered.status == 200
        client.scheme = "http"
        answered = await client.get("/")
        assert (answered.status, json.loads(answered.body)["code"]) == (400, "malformed")
        assert len(world.served) == 2
        writer.transport.abort()


async def test_who_offers_both_and_speaks_neither_of_them_is_served_by_nobody() -> None:
    async with intercepting(REDIRECTED) as world:
        world.trust.set_alpn_protocols(["h2", "http/1.1"])
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", world.port, ssl=world.trust, server_hostname="a.example"
        )
        writer.write(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        assert b"HTTP/1.1" not in await asyncio.wait_for(reader.read(), SOON)
        assert (world.codes, world.served) == (["malformed"], [])
        writer.transport.abort()


async def test_the_port_that_was_dialled_counts() -> None:
    async with intercepting(Dialled("192.0.2.1", 8443)) as world:
        status, body = await asyncio.to_thread(world.ask, None, "b.example", "b.example:8443")
        assert (status, body) == (200, b"transparent https b.example:8443")
        status, _ = await asyncio.to_thread(world.ask, None, "b.example", "b.example")
        assert status == 421
        with pytest.raises(ssl.SSLError):
            await asyncio.to_thread(world.ask, None, "a.example", "a.example:8443")


async def test_a_request_inside_names_no_other_server_by_its_target() -> None:
    async with intercepting() as world:
        for target in ("http://b.example/", "https://b.example/", "https://a.example/"):
            host = target.split("/")[2]
            status, body = await asyncio.to_thread(world.ask, "a.example:443", "a.example", host, target)
            assert (status, json.loads(body)["code"]) == (501, "unsupported")
        assert world.served == []


async def test_a_tunnel_to_an_unknown_server_is_refused_before_it_stands() -> None:
    async with intercepting() as world:
        for tunnel in ("x.example:443", "a.example:8443", "192.0.2.1:443", "[2001:db8::1]:443"):
            with pytest.raises(ConnectionRefusedError, match=r"404 Not Found \(unknown_server\)"):
                await asyncio.to_thread(world.dial, tunnel)
        assert [caller.dialled for caller, _ in world.refused] == [
            "x.example:443", "a.example:8443", "192.0.2.1:443", "[2001:db8::1]:443",
        ]  # fmt: skip
        assert world.minted == []


async def test_unknown_names_by_the_thousand_make_nothing() -> None:
    async with intercepting(REDIRECTED) as world:

        def flood() -> set[bytes]:
            return {
                world.say(None, records(message(sni(f"n{number}.example".encode()))))
                for number in range(1_000)
            }

        assert await asyncio.to_thread(flood) == {b"\x15\x03\x03\0\x02\x02\x70"}
        assert set(world.codes) == {"unknown_server"}
        assert (len(world.refused), world.minted, len(world.contexts)) == (1_000, [], 0)
        assert world.refused[0][0].dialled == "n0.example:443"


@pytest.mark.parametrize(
    ("data", "code", "alert"),
    [
        (b"\x16\x03\x01\0\x05\x02\0\0\x01\0", "malformed", 50),
        (b"\x16\x03\x01\xff\xff", "malformed", 50),
        (records(message(sni(b"a.example"), sni(b"b.example"))), "malformed", 50),
        (records(message(sni(b"a.example")) + b"\x01"), "malformed", 50),
        (records(message(sni(b"192.0.2.1"))), "malformed", 50),
        (records(message()), "malformed", 112),
        (records(message(sni(b"a.example"), b"\0\x10\0\x05\0\x03\x02h3")), "unsupported", 120),
        (records(message(sni(b"pinned.example"), b"\xfe\x0d\0\0")), "unsupported", 49),
        (records(message(sni(b"pinned.example"))), "no_task", 49),
    ],
)
async def test_what_is_refused_gets_an_alert_and_is_on_record(data: bytes, code: str, alert: int) -> None:
    async with intercepting(REDIRECTED) as world:
        assert await asyncio.to_thread(world.say, None, data) == b"\x15\x03\x03\0\x02\x02" + bytes([alert])
        assert (world.codes, world.served) == ([code], [])


async def test_only_a_whole_hello_of_the_list_comes_to_the_splice() -> None:
    async with intercepting(REDIRECTED) as world:
        await asyncio.to_thread(world.say, None, records(message(sni(b"pinned.example"), b"\xfe\x0d\0\0")))
        assert world.spliced == []
        await asyncio.to_thread(world.say, None, records(message(sni(b"PINNED.example"))))
        assert world.spliced == ["pinned.example:443"]
    async with intercepting(Dialled("192.0.2.1", 8443)) as world:
        world.contexts.of("pinned.example")
        await asyncio.to_thread(world.say, None, records(message(sni(b"pinned.example"))))
        assert world.spliced == []


@pytest.mark.parametrize("tunnel", [None, "a.example:443"])
@pytest.mark.parametrize("count", [1, 3, 20, 60])
async def test_a_hello_that_ends_early(tunnel: str | None, count: int) -> None:
    data = records(message(sni(b"a.example")))[:count]
    async with intercepting(REDIRECTED if tunnel is None else None) as world:
        await asyncio.to_thread(world.say, tunnel, data, True)
        await asyncio.wait_for(world.told.wait(), SOON)
        assert (world.codes, world.minted) == (["malformed"], [])


async def test_a_hello_that_does_not_end_is_given_up() -> None:
    async with intercepting(REDIRECTED, head_timeout=0.2) as world:
        data = records(message(sni(b"a.example")))
        assert b"<reset>" in await asyncio.to_thread(world.say, None, data[:30])
        assert world.codes == ["unsupported"]


async def test_a_client_that_stops_in_its_handshake_is_given_up() -> None:
    async with intercepting(REDIRECTED, head_timeout=0.2) as world:
        await asyncio.to_thread(world.say, None, openssl_hello())
        await asyncio.wait_for(world.told.wait(), SOON)
        assert (world.codes, world.served) == (["unsupported"], [])


async def test_a_hello_byte_by_byte_is_read_and_served() -> None:
    """The waiting is for bytes, not for a time: each is sent when the one before has left."""
    async with intercepting(REDIRECTED) as world:

        def ask() -> bytes:
            to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = world.trust.wrap_bio(to_client, to_server, server_hostname="a.example")
            with world.dial(None) as raw:
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while True:
                    try:
                        tls.do_handshake()
                        break
                    except ssl.SSLWantReadError:
                        for byte in to_server.read():
                            raw.sendall(bytes([byte]))
                        to_client.write(raw.recv(65536))
                tls.write(b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n")
                raw.sendall(to_server.read())
                while True:
                    try:
                        return tls.read(65536)
                    except ssl.SSLWantReadError:
                        to_client.write(raw.recv(65536))

        assert b"200 OK" in await asyncio.to_thread(ask)


async def test_tls_to_the_proxy_itself_and_tunnels_in_tunnels_are_refused() -> None:
    async with intercepting() as world:
        hello = records(message(sni(b"a.example")))
        assert await asyncio.to_thread(world.say, None, hello) == b"\x15\x03\x03\0\x02\x02\x28"
        again = b"CONNECT b.example:443 HTTP/1.1\r\n\r\n"
        assert await asyncio.to_thread(world.say, "a.example:443", again) == b"<reset>"
        assert world.codes == ["unsupported", "unsupported"]


@pytest.mark.parametrize("data", [b"SSH-2.0-x\r\n", b"\0" * 64])
async def test_what_is_neither_is_refused_inside_a_tunnel(data: bytes) -> None:
    async with intercepting() as world:
        assert await asyncio.to_thread(world.say, "a.example:443", data) == b"<reset>"
        assert (world.codes, world.served) == (["unsupported"], [])


async def test_a_hello_that_comes_with_connect_is_not_lost() -> None:
    async with intercepting() as world:

        def ask() -> bytes:
            with world.dial(None) as raw:
                raw.sendall(b"CONNECT a.example:443 HTTP/1.1\r\n\r\n" + openssl_hello())
                raw.settimeout(SOON)
                seen = b""
                while not re.fullmatch(rb"HTTP/1\.1 200 [^\r]+\r\n\r\n\x16\x03\x03.+", seen, re.DOTALL):
                    seen += raw.recv(65536)
                return seen

        assert await asyncio.to_thread(ask)


def openssl_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="a.example")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()
