"""Tool servers that follow a script, an agent that speaks raw HTTP, and a sidecar between them.

The tool servers demand the task's certificate and show one that the authority has enrolled them with, so that the
sidecar trusts them as it trusts a guard; they record every byte that reaches them.

    async with world.tool("plain", script) as tool:
        asking = await world.ask(get("plain", "/read/7"), handle)
"""

import asyncio
import contextlib
import json
import os
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from cryptography import x509

from taskgrant.client import TaskgrantClient
from taskgrant.identity.contexts import client_context, server_context
from taskgrant.identity.csr import new_key
from taskgrant.identity.spiffe import guard_dns, guard_id
from taskgrant.model.credential import Issued
from tests.e2e.processes import AGENT, TRUST_DOMAIN, Installation, Process, installation
from tests.wire.support import SOON, Peer, Script

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
PLAIN = "plain"
OPERATIONS = [
    {"tool": "read", "method": "GET", "path": "/read/{id}"},
    {"tool": "other", "method": "GET", "path": "/other/{id}"},
    {"tool": "write", "method": "POST", "path": "/write"},
    {"tool": "put", "method": "PUT", "path": "/put/{id}"},
    {"tool": "remove", "method": "DELETE", "path": "/remove/{id}"},
]
HTTP_TOOLS = [str(each["tool"]) for each in OPERATIONS]
MCP_TOOLS = ["work", "other"]
#: name → its entry in the catalogue, without the upstream.
SERVERS: dict[str, dict[str, Any]] = {
    PLAIN: {"protocol": "http", "operations": OPERATIONS, "hosts": ["plain.internal"]},
    "modern": {"protocol": "mcp", "versions": [MODERN], "hosts": ["modern.internal"]},
    "legacy": {"protocol": "mcp", "versions": [LEGACY], "hosts": ["legacy.internal"]},
}


@dataclass
class Connection(Peer):
    """One connection, seen from the tool; ``serial`` is that of the certificate which it was shown."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    serial: str = ""

    async def more(self) -> bytes:
        """What comes next; empty once the other side is gone, however it went."""
        try:
            return await self.reader.read(1 << 16)
        except (ConnectionError, ssl.SSLError):
            return b""

    def drop(self) -> None:
        self.writer.transport.abort()


class Recorder:
    """A tool server. ``script`` runs on each connection; ``requests`` is what it was asked, ``late`` what came then."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[bytes] = []
        self.serials: list[str] = []
        self.late = bytearray()
        self.open: list[Connection] = []
        self.connections = 0
        self.reached = asyncio.Event()
        self.over = asyncio.Event()
        self.go = asyncio.Event()

    async def take(self, peer: Connection) -> bytes:
        """The next request, recorded."""
        request = await peer.request()
        self.requests.append(request)
        self.serials.append(peer.serial)
        return request

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        peer = Connection(reader, writer, _serial(writer))
        self.open.append(peer)
        try:
            await self.script(peer, self)  # type: ignore[arg-type]
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            self.over.set()
            self.open.remove(peer)
            peer.drop()


def _serial(writer: asyncio.StreamWriter) -> str:
    tls = writer.get_extra_info("ssl_object")
    if tls is None:
        return ""
    return f"{x509.load_der_x509_certificate(tls.getpeercert(binary_form=True)).serial_number:x}"


@dataclass
class World:
    """A sidecar whose tool servers are the test's own. Tasks are told apart by their handles."""

    place: Installation
    ports: dict[str, int] = field(default_factory=dict)
    asked: list["Asking"] = field(default_factory=list)
    sidecar: Process = field(init=False)

    @property
    def gateway(self) -> str:
        return self.place.addresses["gateway"]

    @property
    def orchestrator(self) -> TaskgrantClient:
        return TaskgrantClient(self.place.control)

    def run(self) -> Process:
        self.sidecar = self.place.run()
        return self.sidecar

    @asynccontextmanager
    async def tool(
        self, name: str, script: Script, *, tls: bool = True, receive_buffer: int | None = None
    ) -> AsyncIterator[Recorder]:
        """``tls=False``: accepts TCP and speaks as the script does."""
        recorder = Recorder(script)
        context = await self.context(name) if tls else None
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if receive_buffer is not None:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        listening.bind(("127.0.0.1", self.ports[name]))
        server = await asyncio.start_server(recorder._serve, sock=listening, ssl=context, limit=1 << 16)
        try:
            yield recorder
        finally:
            server.close()
            while self.asked:
                self.asked.pop().close()
            for peer in list(recorder.open):
                peer.drop()
            await asyncio.wait_for(server.wait_closed(), SOON)

    async def context(self, name: str) -> ssl.SSLContext:
        key = new_key()
        async with self.orchestrator as client:
            enrolled = await client.enrol(name, key.csr(guard_id(TRUST_DOMAIN, name)))
        return server_context(enrolled.certificate, key, enrolled.bundle)

    async def ask(self, request: "Ask", handle: str | None) -> "Asking":
        url = urlsplit(self.gateway)
        reader, writer = await asyncio.open_connection(url.hostname, url.port, limit=1 << 16)
        shown = [] if handle is None else [("Taskgrant-Task", handle)]
        writer.write(request.encode(f"{url.hostname}:{url.port}", shown))
        self.asked.append(Asking(reader, writer))
        return self.asked[-1]

    async def answer(self, request: "Ask", handle: str | None) -> "Answered":
        """The whole answer."""
        asking = await self.ask(request, handle)
        try:
            return await asyncio.wait_for(asking.whole(), SOON)
        finally:
            asking.close()
            self.asked.remove(asking)

    async def metrics(self) -> dict[str, float]:
        url = self.place.addresses["admin"] + "/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            text = await answer.text()
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, value in lines}


@contextmanager
def world(directory: Path, opa: Path, **sections: Any) -> Iterator[World]:
    """``sections`` are laid over the configuration. The ports of the tool servers are kept for them."""
    with installation(directory, opa) as place, contextlib.ExitStack() as kept:
        made = World(place)
        for name, entry in SERVERS.items():
            holder = kept.enter_context(socket.socket())
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holder.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
            made.ports[name] = int(holder.getsockname()[1])
            path = "" if entry["protocol"] == "http" else "/mcp"
            place.servers[name] = {**entry, "upstream": f"https://127.0.0.1:{made.ports[name]}{path}"}
            tools = HTTP_TOOLS if entry["protocol"] == "http" else MCP_TOOLS
            place.boundary.append({"server": name, "tools": tools})
        place.sections["authority"] = {"task_binding": "handle"}
        place.sections["policy"] = {"deadline_ms": 5000}  # a busy machine is not what is tried here
        place.sections |= sections
        made.run()
        yield made


# --- what the agent asks ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ask:
    """One request to the gateway."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def encode(self, host: str, more: list[tuple[str, str]]) -> bytes:
        headers = [("Host", host), *self.headers, *more]
        if self.body:
            headers.append(("Content-Length", str(len(self.body))))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        return f"{self.method} {self.path} HTTP/1.1\r\n{lines}\r\n".encode() + self.body


def get(path: str = "/read/7", *headers: tuple[str, str]) -> Ask:
    return Ask("GET", f"/{PLAIN}{path}", headers)


def send(method: str, path: str, members: dict[str, Any]) -> Ask:
    body = json.dumps(members).encode()
    return Ask(method, f"/{PLAIN}{path}", (("Content-Type", "application/json"),), body)


def call(tool: str = "work", server: str = "modern", *, id: int = 1, **arguments: Any) -> Ask:
    """A tool's call as an MCP client of the revision without sessions sends it."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
        "progressToken": "p",
    }
    params = {"name": tool, "arguments": arguments, "_meta": meta}
    body = {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}
    headers = (
        ("Content-Type", "application/json"),
        ("Accept", "application/json, text/event-stream"),
        ("Mcp-Protocol-Version", MODERN),
        ("Mcp-Method", "tools/call"),
        ("Mcp-Name", tool),
    )
    return Ask("POST", f"/{server}/mcp", headers, json.dumps(body).encode())


def legacy_call(session: str, tool: str = "work", *, id: int = 1, **arguments: Any) -> Ask:
    """The same in a session of the client with the sidecar."""
    params = {"name": tool, "arguments": arguments}
    return _legacy({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}, session)


def initialize() -> Ask:
    client = {"name": "test", "version": "1"}
    params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": client}
    return _legacy({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}, None)


def _legacy(message: dict[str, Any], session: str | None) -> Ask:
    headers = [
        ("Content-Type", "application/json"),
        ("Accept", "application/json, text/event-stream"),
        ("Mcp-Protocol-Version", LEGACY),
    ]
    if session is not None:
        headers.append(("Mcp-Session-Id", session))
    return Ask("POST", "/legacy/mcp", tuple(headers), json.dumps(message).encode())


@dataclass(frozen=True)
class Answered:
    """``whole`` is False for an answer that was cut before its end."""

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool

    @property
    def code(self) -> str:
        """The code of a refusal; "allowed" for anything else."""
        if self.headers.get("content-type", "").startswith("text/event-stream"):
            return _code(self.events[-1]) if self.events else "allowed"
        try:
            return _code(json.loads(self.body))
        except ValueError:
            return "allowed"

    @property
    def events(self) -> list[dict[str, Any]]:
        """The messages of a stream of events; ValueError when the stream ends within one."""
        pieces = self.body.split(b"\n\n")
        if pieces.pop():
            raise ValueError("the stream ends within an event")
        data = [re.findall(rb"^data: ?(.*)$", piece, re.M) for piece in pieces]
        return [json.loads(b"\n".join(lines)) for lines in data if lines]


def _code(document: Any) -> str:
    if not isinstance(document, dict):
        return "allowed"
    if "jsonrpc" in document:
        place = document.get("result", {}).get("_meta") or document.get("error", {}).get("data") or {}
        return str(place.get("taskgrant/code", place.get("code", "allowed")))
    return str(document.get("code", "allowed"))


class Asking:
    """A request that is on its way: what has come back so far is in ``received``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.received = bytearray()
        self.ended = False

    async def until(self, text: bytes) -> None:
        """Reads until ``text`` has come. Raises AssertionError when the answer ends before."""
        while text not in self.received:
            try:
                assert await asyncio.wait_for(self._more(), SOON), bytes(self.received)
            except TimeoutError:
                raise AssertionError(f"waits for {text!r}, has {bytes(self.received[-2000:])!r}") from None

    async def whole(self) -> Answered:
        """Reads to the end of the answer, clean or not."""
        while not (answered := self._parsed()).whole and await self._more():
            pass
        return answered if answered.whole else self._parsed()

    async def _more(self) -> bool:
        try:
            data = await self._reader.read(1 << 16)
        except ConnectionError:
            data = b""
        self.received += data
        self.ended = not data
        return bool(data)

    def _parsed(self) -> Answered:
        head, found, rest = bytes(self.received).partition(b"\r\n\r\n")
        if not found:
            return Answered(0, {}, b"", False)
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = [line.partition(":") for line in lines]
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        status = int(first.split(" ")[1])
        if headers.get("transfer-encoding") == "chunked":
            body, over = _dechunked(rest)
            return Answered(status, headers, body, over)
        length = int(headers.get("content-length", "0"))
        return Answered(status, headers, rest[:length], len(rest) >= length)

    def stop_reading(self) -> None:
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    def resume_reading(self) -> None:
        self._writer.transport.resume_reading()  # type: ignore[attr-defined]

    def close(self) -> None:
        self._writer.transport.abort()


def _dechunked(data: bytes) -> tuple[bytes, bool]:
    body = bytearray()
    while True:
        line, found, rest = data.partition(b"\r\n")
        if not found:
            return bytes(body), False
        size = int(line, 16)
        if size == 0:
            return bytes(body), True
        body += rest[:size]
        if len(rest) < size + 2:
            return bytes(body), False
        data = rest[size + 2 :]


# --- what tools do ---------------------------------------------------------------------------------------------------


def whole(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """An answer with Content-Length."""
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"HTTP/1.1 {status}\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(message: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(message).encode() + b"\n\n"


def progress(number: int) -> dict[str, Any]:
    params = {"progressToken": "p", "progress": number}
    return {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}


EVENT_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


async def echo(peer: Any, tool: Any) -> None:
    """Answers every request of a connection, with the serial that it was shown."""
    while True:
        await tool.take(peer)
        tool.reached.set()
        await peer.send(whole(json.dumps({"serial": peer.serial}).encode(), "Content-Type: application/json"))


# --- grants ----------------------------------------------------------------------------------------------------------


def grant(server: str, *tools: str, **limits: Any) -> dict[str, Any]:
    """A grant for any arguments of these tools."""
    return {"server": server, "tools": list(tools), "arguments": {"additionalProperties": True}, **limits}


async def until(condition: Callable[[], Any]) -> Any:
    """Polls what no event tells of."""
    async with asyncio.timeout(SOON):
        while not (seen := condition()):  # noqa: ASYNC110 - another process changes it
            await asyncio.sleep(0.005)
    return seen


def children(pid: int) -> list[int]:
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == pid:
                    found.append(int(entry.name))
    return found


def command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


# --- a credential outside of the sidecar -----------------------------------------------------------------------------


@dataclass
class Copy:
    """A task's credential with its key, in the hands of somebody who speaks to a guard directly."""

    issued: Issued
    context: ssl.SSLContext

    @classmethod
    async def of(cls, client: TaskgrantClient, task: str, server: str) -> "Copy":
        key = new_key()
        issued = await client.issue(task, server, key.csr(AGENT))
        return cls(issued, client_context(issued.certificate, key, issued.bundle))

    async def post(
        self, port: int, message: dict[str, Any], *, token: str | None = None, session: str | None = None
    ) -> tuple[int, dict[str, str], str]:
        """Status, headers and text of the guard's answer. ``token`` in place of the credential's own."""
        headers = {
            "Authorization": f"Bearer {token or self.issued.token}",
            "Accept": "application/json, text/event-stream",
            "Mcp-Protocol-Version": LEGACY,
        }
        if session is not None:
            headers["Mcp-Session-Id"] = session
        url = f"https://127.0.0.1:{port}/mcp"
        name = guard_dns(TRUST_DOMAIN, self.issued.audience)
        async with (
            aiohttp.ClientSession() as http,
            http.post(url, json=message, headers=headers, ssl=self.context, server_hostname=name) as answer,
        ):
            return (
                answer.status,
                {each.lower(): value for each, value in answer.headers.items()},
                await answer.text(),
            )

    async def open_session(self, port: int) -> str:
        status, headers, text = await self.post(port, json.loads(initialize().body))
        assert status == 200, text
        return headers["mcp-session-id"]


LIST_TOOLS: dict[str, Any] = {"jsonrpc": "2.0", "id": 7, "method": "tools/list", "params": {}}
HELLO: dict[str, Any] = json.loads(initialize().body)
