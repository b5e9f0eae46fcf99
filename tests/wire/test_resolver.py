"""The resolver over real sockets: both families, UDP and TCP; who asks; what garbage, floods and silence come to."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Container
from ipaddress import IPv4Address, IPv6Address

import dns.asyncquery
import dns.message
import dns.rcode
import pytest

from taskgrant.model.call import Caller, Refusal
from taskgrant.model.codes import Code
from taskgrant.protocols.dns import Names
from taskgrant.wire import peer
from taskgrant.wire.redirect.config import RedirectConfig
from taskgrant.wire.resolver import Allowance, Resolver

NAMES = Names.of(["desk.internal"], IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1"))
QUERY = dns.message.make_query("desk.internal", "A")
HOSTS = ["127.0.0.1", "::1"]


class World:
    def __init__(self) -> None:
        self.port = 0
        self.refused: list[tuple[Caller, Refusal]] = []
        self.counted: list[str] = []
        self.more = asyncio.Event()

    def count(self, outcome: str) -> None:
        self.counted.append(outcome)
        self.more.set()

    def codes(self) -> list[Code]:
        return [refusal.code for _, refusal in self.refused]


@contextlib.asynccontextmanager
async def resolving(
    uids: Container[int] = (os.getuid(),), timeout: float = 10.0, allowance: Allowance | None = None
) -> AsyncIterator[World]:
    world = World()

    def refused(caller: Caller, refusal: Refusal) -> None:
        world.refused.append((caller, refusal))

    resolver = Resolver(0, NAMES, uids, refused, world.count, timeout, allowance)
    _, world.port = await resolver.start()
    try:
        yield world
    finally:
        await resolver.stop()


@pytest.mark.parametrize("host", HOSTS)
async def test_it_answers_over_udp_and_tcp(host):
    async with resolving() as world:
        for over in (dns.asyncquery.udp, dns.asyncquery.tcp):
            answer = await over(QUERY, host, timeout=20, port=world.port)
            assert [str(one) for one in answer.answer[0]] == ["192.0.2.1"]
        assert world.counted == ["address", "address"]
        assert world.refused == []


@pytest.mark.parametrize("host", HOSTS)
async def test_an_unknown_name_is_on_record_with_who_asked_and_little_of_the_name(host):
    query = dns.message.make_query("c2VjcmV0.elsewhere.example", "TXT")
    async with resolving() as world:
        for over in (dns.asyncquery.udp, dns.asyncquery.tcp):
            answer = await over(query, host, timeout=20, port=world.port)
            assert answer.rcode() == dns.rcode.NXDOMAIN
        assert world.codes() == [Code.UNKNOWN_SERVER] * 2
        for caller, _ in world.refused:
            assert (caller.uid, caller.listener) == (os.getuid(), "dns")
            assert caller.dialled.startswith("….elsewhere.example (sha256:")
            assert "c2VjcmV0" not in repr(caller)


async def test_nobody_else_is_answered():
    async with resolving(uids=()) as world:
        with pytest.raises((EOFError, OSError)):
            await dns.asyncquery.tcp(QUERY, "127.0.0.1", timeout=20, port=world.port)
        await unanswered(world, QUERY.to_wire())
        assert world.codes() == [Code.PEER_REFUSED] * 2
        assert world.counted == ["peer", "peer"]


async def unanswered(world: World, query: bytes) -> None:
    """Once it has been counted, nothing has come back."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect(("127.0.0.1", world.port))
        world.more.clear()
        await loop.sock_sendall(client, query)
        await world.more.wait()
        await asyncio.sleep(0)
        with pytest.raises(BlockingIOError):
            client.recv(1)


async def test_a_response_is_not_answered():
    async with resolving() as world:
        await unanswered(world, dns.message.make_response(QUERY).to_wire())
        assert world.counted == ["malformed"]


async def test_too_many_are_dropped_and_few_records_say_so():
    async with resolving(allowance=Allowance(0, 2)) as world:
        for _ in range(2):
            await dns.asyncquery.udp(QUERY, "127.0.0.1", timeout=20, port=world.port)
        for _ in range(20):
            await unanswered(world, QUERY.to_wire())
        with pytest.raises((EOFError, OSError)):
            await dns.asyncquery.tcp(QUERY, "127.0.0.1", timeout=20, port=world.port)
        assert world.counted == ["address"] * 2 + ["dropped"] * 21
        assert 1 <= len(world.refused) < 21
        assert set(world.codes()) == {Code.OVERLOADED}


def test_an_allowance_comes_back_with_time():
    now = 0.0
    allowance = Allowance(10, 3, lambda: now)
    assert [allowance.take() for _ in range(4)] == [True, True, True, False]
    now = 0.1
    assert [allowance.take() for _ in range(2)] == [True, False]
    now = 1000.0
    assert [allowance.take() for _ in range(4)] == [True, True, True, False]


async def connect(world: World) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", world.port)


async def test_one_connection_asks_several_times_also_byte_by_byte():
    wire = QUERY.to_wire()
    async with resolving() as world:
        reader, writer = await connect(world)
        writer.write((len(wire).to_bytes(2) + wire) * 2)
        for byte in len(wire).to_bytes(2) + wire:
            writer.write(bytes([byte]))
            await writer.drain()
        for _ in range(3):
            answer = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
            assert QUERY.is_response(dns.message.from_wire(answer))
        writer.close()


async def test_a_connection_is_of_use_only_so_often():
    wire = QUERY.to_wire()
    async with resolving() as world:
        reader, writer = await connect(world)
        writer.write((len(wire).to_bytes(2) + wire) * 40)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        assert world.counted == ["address"] * 32
        writer.close()


@pytest.mark.parametrize("sent", [b"", b"\0", b"\0\x1d", b"\0\x1dhalf a query", b"\xff\xff" + bytes(100)])
async def test_who_says_nothing_or_half_of_it_is_hung_up_on(sent):
    async with resolving(timeout=0.05) as world:
        reader, writer = await connect(world)
        writer.write(sent)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        assert world.counted == []


@pytest.mark.parametrize(
    "sent", [b"\xff\xff" + bytes(70000), b"\0\5hello", b"\0\0", b"GET / HTTP/1.1\r\n\r\n" * 400]
)
async def test_garbage_is_told_so_or_hung_up_on(sent):
    async with resolving(timeout=1.0) as world:
        reader, writer = await connect(world)
        writer.write(sent)
        with contextlib.suppress(ConnectionError):
            assert len(await reader.read()) in (0, 14)
        writer.close()
        assert world.counted in (["malformed"], ["refused"])
        # And others are unharmed.
        await dns.asyncquery.tcp(QUERY, "127.0.0.1", timeout=20, port=world.port)


async def test_connections_are_few():
    async with resolving() as world:
        held = [await connect(world) for _ in range(32)]
        with pytest.raises((EOFError, OSError)):
            await dns.asyncquery.tcp(QUERY, "127.0.0.1", timeout=20, port=world.port)
        assert world.codes() == [Code.OVERLOADED]
        # UDP is not concerned.
        await dns.asyncquery.udp(QUERY, "127.0.0.1", timeout=20, port=world.port)
        for _, writer in held:
            writer.close()


async def test_stopping_waits_for_nobody():
    async with resolving(timeout=600) as world:
        _, writer = await connect(world)
        await dns.asyncquery.tcp(QUERY, "127.0.0.1", timeout=20, port=world.port)
        started = time.monotonic()
    assert time.monotonic() - started < 60
    writer.close()


async def test_a_port_that_is_taken_is_an_error_and_leaves_nothing_open():
    async with resolving() as world:
        other = Resolver(world.port, NAMES, (), lambda caller, refusal: None)
        with pytest.raises(OSError, match="use"):
            await other.start()


@pytest.mark.parametrize(
    "bound, seen",
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("::", "127.0.0.1"),
        ("::1", "::1"),
        ("::", "::1"),
    ],
)
def test_the_kernel_says_whose_a_udp_socket_is(bound, seen):
    family = socket.AF_INET6 if ":" in bound else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((bound, 0))
        port = sock.getsockname()[1]
        assert peer.udp_owners((seen, port)) == {os.getuid()}
    assert peer.udp_owners((seen, port)) == frozenset()
    assert peer.udp_owners(("nonsense", port)) == frozenset()


@pytest.mark.parametrize(
    "setting",
    [
        {"answer": "127.0.0.1"},
        {"answer": "169.254.169.254"},
        {"answer": "224.0.0.1"},
        {"answer": "0.0.0.0"},
        {"answer": "2001:db8::1"},
        {"answer6": "::1"},
        {"answer6": "fe80::1"},
        {"answer6": "::ffff:192.0.2.1"},
        {"answer6": "fd00:ec2::254"},
    ],
)
def test_an_answer_is_an_address_that_is_served(setting):
    with pytest.raises(ValueError, match=r"answer"):
        RedirectConfig.model_validate(setting)
