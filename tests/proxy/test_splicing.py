"""Connections let through unread: only in a task, on record first, slowed by who is slow, and cut with the task."""

import asyncio
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

import pytest

from taskgrant.errors import Refused
from taskgrant.model.call import Caller, Refusal
from taskgrant.model.codes import Code
from taskgrant.model.egress import (
    EgressAction,
    EgressDecision,
    EgressHost,
    EgressHosts,
    EgressQuery,
    Mode,
)
from taskgrant.model.event import Revocation
from taskgrant.model.grant import Grant
from taskgrant.model.ids import TaskId
from taskgrant.model.ports import Exchange
from taskgrant.model.record import Record
from taskgrant.model.task import Task, TaskState
from taskgrant.model.time import Instant
from taskgrant.proxy.gate import Gate
from taskgrant.proxy.splicing import Splicer
from taskgrant.proxy.telemetry import Stage
from taskgrant.wire.config import ListenConfig
from taskgrant.wire.dispatching import DispatchingListener
from taskgrant.wire.intercept import Interceptor
from taskgrant.wire.legs import Legs
from taskgrant.wire.listener import Accepted
from taskgrant.wire.opaque import Opaque
from taskgrant.wire.opening import Opening
from taskgrant.wire.redirect.original import Dialled
from taskgrant.wire.splice import connect
from tests.wire.support import Trust

SOON = 20.0
PINNED = EgressHost("pinned.example", Mode.SPLICE)
SPLICED = EgressDecision(EgressAction.SPLICE, Code.GRANTED, (), "decision-1", "revision-1")
CALLER = Caller(os.getuid(), "transparent", None, "", "pinned.example:443")


def live_task() -> Task:
    """A task whose deadline is far off: counted from now, since a module may be read long before its tests run."""
    return Task(
        TaskId("task-1"), "spiffe://example.org/agent/a", "p", TaskState.ACTIVE,
        Instant(0), Instant(time.time() + 86400), "uid:0", b"",
    )  # fmt: skip


class Clock:
    def now(self) -> Instant:
        return Instant(time.time())


@dataclass
class World:
    """Implements ``View``, ``EgressDecider``, ``Recorder`` and ``Telemetry`` as a test says."""

    bound: Task | Refusal = field(default_factory=live_task)
    is_frozen: bool = False
    audit: bool = True
    records: list[Record] = field(default_factory=list)
    recorded: asyncio.Event = field(default_factory=asyncio.Event)
    dialled: int = 0
    legs: Legs = field(default_factory=lambda: Legs(Clock()))
    decision: EgressDecision = SPLICED
    asked: list[EgressQuery] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    host: EgressHost = PINNED

    def bind(self, caller: Caller) -> Task | Refusal:
        return self.bound

    def live(self, task: TaskId, now: Instant) -> tuple[Grant, ...]:
        return ()

    def frozen(self, task: Task | None, server: str, tool: str | None) -> bool:
        return self.is_frozen

    async def write(self, record: Record) -> None:
        if not self.audit:
            raise Refused(Code.AUDIT_UNAVAILABLE, "no audit")
        self.post(record)

    def post(self, record: Record) -> None:
        self.records.append(record)
        self.recorded.set()

    async def connect(self, host: str, port: int, seconds: float) -> socket.socket:
        self.dialled += 1
        self.far, near = socket.socketpair()
        self.far.setblocking(False)
        near.setblocking(False)
        assert (host, port) == ("pinned.example", 443)
        return near

    async def egress(self, query: EgressQuery) -> EgressDecision:
        self.asked.append(query)
        return self.decision

    def decided(self, code: str, server: str) -> None:
        self.codes.append(code)

    def observe(self, stage: Stage, seconds: float) -> None:
        """Nothing of it is measured."""

    def gate(self) -> Gate:
        return Gate("spiffe://example.org/agent/a", self, self, self.legs, self, Clock(), self)

    @asynccontextmanager
    async def spliced(self) -> AsyncIterator[tuple[socket.socket, "asyncio.Task[None]"]]:
        """The agent's end, and the splice at work."""
        agent, accepted = socket.socketpair()
        agent.setblocking(False)
        accepted.setblocking(False)
        splicer = Splicer(self.gate(), 5, self.connect)
        running = asyncio.create_task(
            splicer.splice(Accepted(accepted, os.getuid(), None, ""), CALLER, self.host)
        )
        waiting = asyncio.create_task(self.recorded.wait())
        try:
            await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED, timeout=SOON)
            yield agent, running
        finally:
            for task in (running, waiting):
                task.cancel()
            await asyncio.gather(running, waiting, return_exceptions=True)
            agent.close()
            accepted.close()  # the splice's own, unless it was refused
            if self.dialled:
                self.far.close()

    @property
    def events(self) -> list[str]:
        return [record.event for record in self.records]


async def read(sock: socket.socket, count: int) -> bytes:
    loop, data = asyncio.get_running_loop(), b""
    async with asyncio.timeout(SOON):
        while len(data) < count and (chunk := await loop.sock_recv(sock, 65536)):
            data += chunk
    return data


async def test_bytes_pass_both_ways_and_each_side_may_end_first():
    world, loop = World(), asyncio.get_running_loop()
    async with world.spliced() as (agent, running):
        assert world.events == ["egress.decided"]
        await loop.sock_sendall(agent, b"hello")
        assert await read(world.far, 5) == b"hello"
        agent.shutdown(socket.SHUT_WR)
        assert await read(world.far, 1) == b""
        await loop.sock_sendall(world.far, b"late answer")
        world.far.close()
        assert await read(agent, 100) == b"late answer"
        await asyncio.wait_for(running, SOON)
    opened, closed = world.records
    assert (opened.fields["action"], opened.fields["decision_id"]) == ("splice", "decision-1")
    assert (opened.fields["task"], opened.fields["dialled"]) == ("task-1", "pinned.example:443")
    assert (closed.event, closed.fields["code"]) == ("egress.settled", "granted")
    assert (closed.fields["sent"], closed.fields["received"]) == (5, 11)
    assert len(world.legs) == 0


async def test_megabytes_arrive_whole_and_a_slow_reader_slows_the_sender():
    world, loop = World(), asyncio.get_running_loop()
    data = os.urandom(8 << 20)
    async with world.spliced() as (agent, running):
        sending = asyncio.create_task(loop.sock_sendall(world.far, data))
        # Nobody reads: what is under way is bounded, so the sender is not done.
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(sending), 0.3)
        assert await read(agent, len(data)) == data
        await asyncio.wait_for(sending, SOON)
        world.far.close()
        agent.shutdown(socket.SHUT_WR)
        await asyncio.wait_for(running, SOON)
    assert world.records[-1].fields["received"] == len(data)


async def test_the_end_of_the_task_is_the_end_of_the_connection():
    world, loop = World(), asyncio.get_running_loop()
    async with world.spliced() as (agent, running):
        await loop.sock_sendall(world.far, bytes(1 << 16))
        await read(agent, 1)
        await world.legs.sever_revocation(
            Revocation(at=Instant(time.time()), reason="it was completed", tasks=frozenset({live_task().id}))
        )
        await asyncio.wait_for(running, SOON)
        assert len(world.legs) == 0
        for side in (agent, world.far):
            with suppress(ConnectionError):
                while await asyncio.wait_for(loop.sock_recv(side, 1 << 20), SOON):
                    continue
    assert world.records[-1].fields["code"] == "task_ended"


async def test_a_connection_by_which_nothing_moves_is_closed():
    """Whoever moves something, either way, keeps it open."""
    world, loop = World(host=replace(PINNED, idle_timeout=0.7)), asyncio.get_running_loop()
    passed = 0
    async with world.spliced() as (agent, running):
        began = loop.time()
        while loop.time() - began < 2 * world.host.idle_timeout:
            for sender, reader in ((agent, world.far), (world.far, agent)):
                await loop.sock_sendall(sender, b"x")
                assert await read(reader, 1) == b"x"
            passed += 1
        await asyncio.wait_for(running, SOON)
        for side in (agent, world.far):
            with suppress(ConnectionError):
                assert await asyncio.wait_for(loop.sock_recv(side, 1), SOON) == b""
    settled = world.records[-1].fields
    assert (settled["code"], settled["outcome"]) == ("granted", "idle")
    assert (settled["sent"], settled["received"]) == (passed, passed)
    assert len(world.legs) == 0


async def test_who_reads_nothing_keeps_nothing_open():
    world = World(host=replace(PINNED, idle_timeout=0.3))
    async with world.spliced() as (_, running):
        sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(world.far, bytes(8 << 20)))
        await asyncio.wait_for(running, SOON)
        with suppress(ConnectionError):
            await asyncio.wait_for(sending, SOON)
    assert world.records[-1].fields["outcome"] == "idle"


async def test_the_deadline_of_the_task_is_the_end_too():
    world = World(replace(live_task(), deadline=Instant(time.time() + 0.2)))
    async with world.spliced() as (_, running):
        await asyncio.wait_for(running, SOON)
    assert world.events == ["egress.decided", "egress.settled"]
    assert world.records[-1].fields["code"] == "grant_expired"


@pytest.mark.parametrize(
    ("world", "code", "dialled"),
    [
        (World(bound=Refusal(Code.HANDLE_INVALID, "none")), "handle_invalid", 0),
        (World(is_frozen=True), "frozen", 0),
        (World(audit=False), "audit_unavailable", 1),
        (
            World(decision=EgressDecision(EgressAction.REFUSE, Code.DENIED_BY_POLICY, ("no",))),
            "denied_by_policy",
            0,
        ),
    ],
)
async def test_what_is_refused_passes_no_byte(world, code, dialled):
    async with world.spliced() as (_, running):
        with pytest.raises(Refused) as refused:
            await asyncio.wait_for(running, SOON)
        assert (refused.value.code, world.dialled, world.codes) == (code, dialled, [code])
        assert [(each.event, each.fields["action"]) for each in world.records] == [
            ("egress.decided", "refuse")
        ]
        if dialled:
            assert await read(world.far, 1) == b""
    assert len(world.legs) == 0


async def test_without_a_task_policy_is_asked_whether_it_needs_one():
    world = World(bound=Refusal(Code.NO_TASK, "none"))
    async with world.spliced() as (_, running):
        assert [query.task for query in world.asked] == [None]
        await world.legs.sever_revocation(Revocation(at=Instant(0), reason="frozen", taskless=True))
        await asyncio.wait_for(running, SOON)
    assert world.records[-1].fields["code"] == "frozen"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "169.254.169.254", "0.0.0.0", "224.0.0.1"])
async def test_a_name_that_leads_to_this_machine_or_to_no_server_is_not_dialled(host):
    with pytest.raises(Refused) as refused:
        await connect(host, 443, 5)
    assert refused.value.code == "forbidden"


async def test_a_name_without_an_address_is_unreachable():
    with pytest.raises(Refused) as refused:
        await connect("nothing.invalid", 443, 5)
    assert refused.value.code == "upstream_unreachable"


async def test_a_client_that_pins_its_servers_ca_sees_that_servers_certificate(domain: Trust):
    """The whole way: a redirected connection, its hello, a real TLS server with a CA of its own behind the splice."""
    world, loop = World(), asyncio.get_running_loop()
    refused: list[Refusal] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"you said " + await reader.readline())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=domain.server())

    async def dial(host: str, port: int, seconds: float) -> socket.socket:
        near = socket.socket()
        near.setblocking(False)
        await loop.sock_connect(near, server.sockets[0].getsockname())
        return near

    splicer = Splicer(world.gate(), 5, dial)
    hosts = EgressHosts((EgressHost("tool.example.org", Mode.SPLICE),))
    interceptor = Interceptor(_nothing, 5, hosts, splicer.splice)
    listener = _Redirected(
        "proxy", "127.0.0.1:0", _no_handler, ListenConfig(), frozenset({os.getuid()}),
        lambda caller, refusal: refused.append(refusal), {Opening.TLS: interceptor.speak},
    )  # fmt: skip
    _, port = await listener.start()
    _, context = domain.issue()
    try:
        reader, writer = await asyncio.wait_for(
            asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="tool.example.org"), SOON
        )
        writer.write(b"secret\n")
        assert await asyncio.wait_for(reader.read(), SOON) == b"you said secret\n"
        writer.close()
        await asyncio.wait_for(writer.wait_closed(), SOON)
        async with asyncio.timeout(SOON):
            while world.events != ["egress.decided", "egress.settled"]:
                world.recorded.clear()
                await world.recorded.wait()
    finally:
        await listener.stop(0.1)
        server.close()
        await server.wait_closed()
    assert refused == []
    assert "secret" not in str(world.records)


@pytest.mark.parametrize("way", ["redirected", "connect"])
async def test_a_protocol_in_which_the_server_speaks_first_passes_where_it_is_listed(way: str):
    world, refused = World(), []
    opaque = EgressHost("db.example:443", Mode.OPAQUE, addresses=("192.0.2.1",))

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\n" + await reader.readline())
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    dialled: list[tuple[str, int]] = []

    async def dial(host: str, port: int, seconds: float) -> socket.socket:
        dialled.append((host, port))
        near = socket.socket()
        near.setblocking(False)
        await asyncio.get_running_loop().sock_connect(near, server.sockets[0].getsockname())
        return near

    splicer, hosts = Splicer(world.gate(), 5, dial), EgressHosts((opaque,))
    kind = _Redirected if way == "redirected" else DispatchingListener
    listener = kind(
        "proxy", "127.0.0.1:0", _no_handler, ListenConfig(), frozenset({os.getuid()}),
        lambda caller, refusal: refused.append(refusal.code), {}, lambda host, port: None,
        Opaque(hosts, splicer.splice).take,
    )  # fmt: skip
    _, port = await listener.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        if way == "connect":
            writer.write(b"CONNECT db.example:443 HTTP/1.1\r\nhost: db.example:443\r\n\r\n")
            async with asyncio.timeout(SOON):
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.write(b"\x16\x03 bye\n")
        assert await asyncio.wait_for(reader.read(), SOON) == b"220 hello\n\x16\x03 bye\n"
        writer.close()
        world.decision = EgressDecision(EgressAction.REFUSE, Code.DENIED_BY_POLICY, ("no",))
        if way == "redirected":
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(reader.read(), SOON)
            writer.close()
    finally:
        await listener.stop(0.1)
        server.close()
        await server.wait_closed()
    assert dialled == [("192.0.2.1", 443)]
    assert {query.about.host for query in world.asked} == {opaque}
    assert refused == []  # whoever lets through has it on record
    assert world.codes == (["granted", "denied_by_policy"] if way == "redirected" else ["granted"])


class _Redirected(DispatchingListener):
    """As if the kernel had redirected what comes in."""

    def _admit(self, sock: socket.socket) -> Accepted:
        return Accepted(sock, os.getuid(), Dialled("192.0.2.1", 443), "")


def _nothing(host: str, port: int) -> ssl.SSLContext:
    raise Refused(Code.UNKNOWN_SERVER, "nothing is intercepted here")


async def _no_handler(exchange: Exchange) -> None:
    raise AssertionError("nothing is to be handled")


@pytest.fixture(scope="module")
def domain() -> Trust:
    """Somebody else's trust domain."""
    return Trust()
