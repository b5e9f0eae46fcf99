"""WebSockets of the catalogue: real clients, sidecar, OPA, guard and server, by each way in."""

import json
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import websockets
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.typing import Subprotocol

from taskgrant.client import TaskgrantClient
from tests.e2e.office import Office
from tests.e2e.processes import TRUST_DOMAIN, Installation, free_port, installation, listens, wait_for

LIVE: dict[str, Any] = {
    "server": "rooms",
    "tools": ["live"],
    "arguments": {"properties": {"room": {"enum": ["7"]}, "since": {"type": "string"}}, "required": ["room"]},
}
OPERATION = {
    "tool": "live",
    "method": "GET",
    "path": "/rooms/{room}/live",
    "query": ["since"],
    "websocket": True,
}

OFFERED = [Subprotocol("x"), Subprotocol("chat")]


@dataclass
class Rooms:
    place: Installation
    trust: Path

    @property
    def seen(self) -> list[dict[str, Any]]:
        """What has reached the server."""
        path = self.place.directory / "rooms.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def url(self) -> str:
        return self.place.addresses["gateway"].replace("http", "ws", 1) + "/rooms/rooms/7/live"

    @property
    def proxy(self) -> str:
        return self.place.addresses["proxy"]

    def orchestrator(self) -> TaskgrantClient:
        return TaskgrantClient(self.place.control)

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.trust / "bundle.pem"))

    def records(self, event: str) -> list[dict[str, Any]]:
        return [each for each in self.place.audit if each["event"] == event and each.get("server") == "rooms"]


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory, opa_binary: Path) -> Iterator[Rooms]:
    directory = tmp_path_factory.mktemp("rooms")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory, installation(directory, opa_binary) as place:
        place.sections = {"listen": {"ca_dir": f"{memory}/ca", "trust_dir": "trust"}}
        guard_port, port = free_port(), free_port()
        place.servers["rooms"] = {
            "protocol": "http",
            "upstream": f"https://127.0.0.1:{guard_port}",
            "operations": [OPERATION],
            "hosts": ["rooms.internal"],
        }
        place.boundary.append({"server": "rooms", "tools": ["live"]})
        script = Path(__file__).with_name("rooms_server.py")
        server = place.python(str(script), str(port), str(directory / "rooms.jsonl"))
        Office.start(place)
        wait_for(lambda: listens(port), "the server listens", server)
        guard = place.python(
            "-m", "taskgrant.cli.main", "--socket", str(place.control), "guard", "--server", "rooms",
            "--trust-domain", TRUST_DOMAIN, "--listen", f"127.0.0.1:{guard_port}", "--protocol", "http",
            "--upstream", f"http://127.0.0.1:{port}", "--operation", json.dumps(OPERATION),
        )  # fmt: skip
        wait_for(lambda: listens(guard_port), "the guard listens", guard)
        yield Rooms(place, directory / "trust")


async def test_an_echo_by_each_way_in(rooms: Rooms) -> None:
    async with rooms.orchestrator() as orchestrator, orchestrator.task("chat", [LIVE]) as task:
        tls = rooms.context()
        for url, options in (
            (rooms.url, {"proxy": None}),
            ("ws://rooms.internal/rooms/7/live", {"proxy": rooms.proxy}),
            ("wss://rooms.internal/rooms/7/live", {"proxy": rooms.proxy, "ssl": tls}),
        ):
            async with websockets.connect(f"{url}?since=3", subprotocols=OFFERED, **options) as client:
                await client.send("hello")
                assert await client.recv() == "hello"
                assert client.subprotocol == "chat"
            assert client.close_code == 1000
        # aiohttp sends a plain WebSocket through a proxy in absolute form
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(
                "http://rooms.internal/rooms/7/live", proxy=rooms.proxy, compress=15
            ) as socket,
        ):
            large = b"x" * 500_000
            await socket.send_bytes(large)
            assert await socket.receive_bytes(timeout=10) == large
            assert socket.compress == 0
        openings = [each for each in rooms.seen if "path" in each]
        assert [each["path"] for each in openings] == ["/rooms/7/live?since=3"] * 3 + ["/rooms/7/live"]
        for each in openings:
            assert each["headers"]["taskgrant-task"] == task.id
            assert "sec-websocket-extensions" not in each["headers"]
    settled = wait_for(
        lambda: [each for each in rooms.records("call.settled") if "messages_sent" in each][3:], "settled"
    )
    assert (settled[0]["outcome"], settled[0]["bytes_sent"], settled[0]["messages_received"]) == (
        "completed",
        500_000,
        1,
    )


async def test_what_is_not_granted_reaches_nobody(rooms: Rooms) -> None:
    before = len(rooms.seen)
    with pytest.raises(InvalidStatus) as refused:
        await websockets.connect(rooms.url, proxy=None)
    assert json.loads(refused.value.response.body)["code"] == "no_task"
    async with rooms.orchestrator() as orchestrator, orchestrator.task("chat", [LIVE]):
        with pytest.raises(InvalidStatus) as refused:
            await websockets.connect(rooms.url.replace("/7/", "/8/"), proxy=None)
        assert json.loads(refused.value.response.body)["code"] == "arguments_refused"
    assert len(rooms.seen) == before


@pytest.mark.parametrize("way", ["gateway", "proxy"])
async def test_completing_closes_it_with_a_reason(rooms: Rooms, way: str) -> None:
    async with rooms.orchestrator() as orchestrator:
        async with orchestrator.task("chat", [LIVE]):
            if way == "gateway":
                client = await websockets.connect(rooms.url, proxy=None)
            else:
                url = "wss://rooms.internal/rooms/7/live"
                client = await websockets.connect(url, proxy=rooms.proxy, ssl=rooms.context())
            assert await _said(client, "one") == "one"
        with pytest.raises(ConnectionClosedError):
            await _said(client, "two")
    assert client.close_code == 1008
    assert (client.close_reason or "").startswith("outcome_unknown: ")
    assert [each["text"] for each in rooms.seen if "text" in each][-1] == "one"


async def _said(client: ClientConnection, text: str) -> object:
    """The answer to it."""
    await client.send(text)
    return await client.recv()
