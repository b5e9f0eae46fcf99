"""gRPC, from an unmodified grpcio client to a real grpcio server that demands a certificate of the task's."""

import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest

from taskgrant.client import SyncTaskgrantClient
from taskgrant.identity.csr import new_key
from taskgrant.identity.spiffe import guard_id
from tests.e2e.processes import TRUST_DOMAIN, Installation, free_port, installation
from tests.protocols.grpc.notes import Note, descriptors, note_class

SOON = 20.0
METHODS = [f"notes.Notes/{name}" for name in ("Add", "Other", "Watch")]
SHORT = {
    "properties": {"text": {"type": "string", "maxLength": 5}, "size": {"type": "string"}},
    "required": ["text"],
}


def grant(method: str = "Add", **members: Any) -> dict[str, Any]:
    return {"server": "notes", "tools": [f"notes.Notes/{method}"], "arguments": SHORT, **members}


@dataclass
class Notes:
    """The server (a ``grpc.GenericRpcHandler``): says what it is called with, and by whom."""

    calls: list[tuple[str, Any, dict[str, str], str]] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        read = {"request_deserializer": Note.FromString, "response_serializer": Note.SerializeToString}
        match details.method:
            case "/notes.Notes/Add" | "/notes.Notes/Other":
                return grpc.unary_unary_rpc_method_handler(self.add, **read)
            case "/notes.Notes/Watch":
                return grpc.unary_stream_rpc_method_handler(self.watch, **read)
        return None

    def add(self, note: Any, context: grpc.ServicerContext) -> Any:
        self._heard("Add", note, context)
        if note.text == "fail":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no: näh")
        return Note(text=note.text * max(1, note.size))

    def watch(self, note: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        self._heard("Watch", note, context)
        for size in range(3):
            yield Note(size=size)
        if note.text == "wait":
            context.add_callback(self.left.set)
            self.left.wait(SOON)

    def _heard(self, name: str, note: Any, context: grpc.ServicerContext) -> None:
        identity = context.auth_context()["x509_subject_alternative_name"][0].decode()
        metadata = {str(key): str(value) for key, value in context.invocation_metadata()}
        metadata["deadline"] = str(context.time_remaining())
        self.calls.append((name, note, metadata, identity))


@dataclass
class World:
    place: Installation
    notes: Notes
    control: SyncTaskgrantClient
    trust: Path

    def channel(self, way: str) -> grpc.Channel:
        proxy = self.place.addresses["proxy"]
        if way == "plain":
            options = [("grpc.default_authority", "notes.internal"), ("grpc.enable_http_proxy", 0)]
            return grpc.insecure_channel(proxy.removeprefix("http://"), options)
        roots = grpc.ssl_channel_credentials((self.trust / "ca.pem").read_bytes())
        return grpc.secure_channel("notes.internal:443", roots, [("grpc.http_proxy", proxy)])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, opa_binary: Path) -> Iterator[World]:
    directory, port = tmp_path_factory.mktemp("grpc"), free_port()
    (directory / "notes.binpb").write_bytes(descriptors())
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory, installation(directory, opa_binary) as place:
        place.servers["notes"] = {
            "protocol": "grpc",
            "upstream": f"https://127.0.0.1:{port}",
            "hosts": ["notes.internal"],
            "descriptors": "notes.binpb",
        }
        place.boundary.append({"server": "notes", "tools": METHODS})
        place.sections = {
            "listen": {"ca_dir": f"{memory}/ca", "trust_dir": "trust"},
            "policy": {"deadline_ms": 1000},  # a busy machine is not what is under test
        }
        place.run()
        control = SyncTaskgrantClient(place.control)
        key = new_key()
        enrolled = control.enrol("notes", key.csr(guard_id(TRUST_DOMAIN, "notes")))
        notes = Notes()
        server = grpc.server(ThreadPoolExecutor(4), [notes])
        credentials = grpc.ssl_server_credentials(
            [(key.pem(), enrolled.certificate)], enrolled.bundle, require_client_auth=True
        )
        server.add_secure_port(f"127.0.0.1:{port}", credentials)
        server.start()
        try:
            yield World(place, notes, control, directory / "trust")
        finally:
            server.stop(0).wait()


@pytest.fixture
def task(world: World) -> Iterator[Callable[..., Any]]:
    started = []

    def start(*grants: dict[str, Any]) -> Any:
        started.append(world.control.start({"purpose": "notes", "grants": list(grants)}).task)
        return started[-1]

    yield start
    for each in started:
        world.control.complete(each.id)


def call(channel: grpc.Channel, note: Any, method: str = "Add", **options: Any) -> Any:
    stub = channel.unary_unary(f"/notes.Notes/{method}", type(note).SerializeToString, Note.FromString)
    return stub(note, timeout=SOON, **options)


def watch(channel: grpc.Channel, note: Any) -> Any:
    stub = channel.unary_stream("/notes.Notes/Watch", Note.SerializeToString, Note.FromString)
    return stub(note, timeout=SOON)


def refused(channel: grpc.Channel, note: Any, method: str = "Add", **options: Any) -> tuple[str, str]:
    """Status and code."""
    with pytest.raises(grpc.RpcError) as raised:
        call(channel, note, method, **options)
    error: Any = raised.value
    assert error.details()
    return error.code().name, dict(error.trailing_metadata()).get("taskgrant-code", "")


@pytest.mark.parametrize("way", ["plain", "tls"])
def test_an_unmodified_client_calls_what_is_granted_and_nothing_else(
    world: World, task: Callable[..., Any], way: str
) -> None:
    with world.channel(way) as channel:
        assert refused(channel, Note(text="hello")) == ("PERMISSION_DENIED", "no_task")
        started = task(grant(), grant("Watch"))
        before = len(world.notes.calls)
        answer = call(
            channel, Note(text="hello", size=2), metadata=[("x-mine", "1"), ("authorization", "Bearer x")]
        )
        assert answer == Note(text="hellohello")
        assert [each.size for each in watch(channel, Note(text="hello"))] == [0, 1, 2]
        for _, _, metadata, identity in world.notes.calls[before:]:
            assert f"/task/{started.id}/aud/notes" in identity
            assert metadata["authorization"].startswith("Bearer ey")
            assert "x-mine" not in metadata
            assert float(metadata["deadline"]) <= SOON + 1  # gRPC rounds it up
        reached = len(world.notes.calls)
        assert reached == before + 2
        assert refused(channel, Note(text="longer than five")) == ("PERMISSION_DENIED", "arguments_refused")
        assert refused(channel, Note(text="a", loud=True)) == ("PERMISSION_DENIED", "arguments_refused")
        assert refused(channel, Note(text="hello"), "Other") == ("PERMISSION_DENIED", "no_grant")
        assert refused(channel, Note(text="hello"), "Upload") == ("UNIMPLEMENTED", "unsupported")
        assert refused(channel, Note(text="hello"), "Nothing") == ("UNIMPLEMENTED", "unknown_operation")
        more = note_class("extra")(text="hello", extra="x")
        assert refused(channel, more) == ("INVALID_ARGUMENT", "malformed")
        long = Note(text="a" * 1000)
        code = refused(channel, long, compression=grpc.Compression.Gzip)
        assert code == ("UNIMPLEMENTED", "unsupported")
        assert len(world.notes.calls) == reached


def test_grpc_over_http1_is_refused(world: World, task: Callable[..., Any]) -> None:
    task(grant())
    before = len(world.notes.calls)
    with httpx2.Client(proxy=world.place.addresses["proxy"]) as client:
        answer = client.post(
            "http://notes.internal/notes.Notes/Add",
            content=b"\0\0\0\0\0",
            headers={"content-type": "application/grpc"},
        )
    assert (answer.headers["grpc-status"], answer.headers["taskgrant-code"]) == ("12", "unsupported")
    assert len(world.notes.calls) == before


def test_a_servers_own_error_is_the_clients_to_read(world: World, task: Callable[..., Any]) -> None:
    task(grant())
    with world.channel("plain") as channel, pytest.raises(grpc.RpcError) as raised:
        call(channel, Note(text="fail"))
    error: Any = raised.value
    assert (error.code().name, error.details()) == ("FAILED_PRECONDITION", "no: näh")


def test_answers_larger_than_a_window_come_whole(world: World, task: Callable[..., Any]) -> None:
    task(grant())
    with world.channel("tls") as channel:
        assert len(call(channel, Note(text="hello", size=200_000)).text) == 1_000_000


def test_calls_at_once_are_decided_on_one_by_one(world: World, task: Callable[..., Any]) -> None:
    task(grant(max_uses=2))
    with world.channel("plain") as channel:
        stub = channel.unary_unary("/notes.Notes/Add", Note.SerializeToString, Note.FromString)
        calls = [stub.future(Note(text="hello"), timeout=SOON) for _ in range(5)]
        codes = sorted(each.code().name for each in calls)
        assert codes == ["OK", "OK", "PERMISSION_DENIED", "PERMISSION_DENIED", "PERMISSION_DENIED"]


def test_a_stream_is_cut_with_its_grant_and_the_client_is_told(world: World) -> None:
    started = world.control.start({"purpose": "notes", "grants": [grant("Watch")]}).task
    world.notes.left.clear()
    with world.channel("plain") as channel:
        stream = watch(channel, Note(text="wait"))
        assert [next(stream).size for _ in range(3)] == [0, 1, 2]
        world.control.complete(started.id)
        with pytest.raises(grpc.RpcError) as raised:
            next(stream)
    error: Any = raised.value
    assert error.code().name == "UNKNOWN"
    assert "outcome is unknown" in error.details()
    assert world.notes.left.wait(SOON)
