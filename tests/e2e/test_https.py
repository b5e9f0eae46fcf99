"""Agents that speak https: clients that know a proxy and a bundle of CAs by their environment, and nothing else."""

import asyncio
import contextlib
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from taskgrant.client import SyncTaskgrantClient
from tests.e2e.office import READ
from tests.e2e.processes import Installation
from tests.e2e.tickets import SHOW, Tickets, tickets
from tests.wire.http2.client import Client

URL = "https://tickets.internal/tickets/7"
REFUSED = "https://tickets.internal/tickets"

# Each prints the status and the body, of one GET.
URLLIB = """
import sys, urllib.error, urllib.request
try:
    answer = urllib.request.urlopen(sys.argv[1])
except urllib.error.HTTPError as refused:
    answer = refused
print(answer.status, answer.read().decode())
"""
REQUESTS = "import requests, sys; answer = requests.get(sys.argv[1]); print(answer.status_code, answer.text)"
HTTPX = "import httpx2, sys; answer = httpx2.get(sys.argv[1]); print(answer.status_code, answer.text)"
AIOHTTP = """
import aiohttp, asyncio, sys
async def main():
    async with aiohttp.ClientSession(trust_env=True) as session, session.get(sys.argv[1]) as answer:
        print(answer.status, await answer.text())
asyncio.run(main())
"""
#: Node before 24 reads no proxy from its environment, so the tunnel is asked for by hand; TLS and trust are Node's own.
NODE = """
const http = require('http'), https = require('https'), tls = require('tls')
const url = new URL(process.argv[1]), proxy = new URL(process.env.HTTPS_PROXY)
const credentials = Buffer.from(decodeURIComponent(proxy.username + ':' + proxy.password)).toString('base64')
const headers = {host: url.hostname + ':443', 'proxy-authorization': 'Basic ' + credentials}
http.request({host: proxy.hostname, port: proxy.port, method: 'CONNECT', path: headers.host, headers})
  .on('connect', (granted, socket) => {
    if (granted.statusCode !== 200) process.exit(4)
    const createConnection = () =>
      tls.connect({socket, servername: url.hostname, ALPNProtocols: ['http/1.1']})
    https.get(url, {defaultPort: 443, createConnection}, answer => {
      let body = ''
      answer.on('data', data => body += data).on('end', () => console.log(answer.statusCode, body))
    }).on('error', error => { console.error(error.code); process.exit(3) })
  })
  .end()
"""
HTTPX_HTTP2 = """
import httpx2, sys
with httpx2.Client(http1=False, http2=True) as client:
    answer = client.get(sys.argv[1])
    assert answer.http_version == 'HTTP/2'
print(answer.status_code, answer.text)
"""
NODE_HTTP2 = """
const http = require('http'), http2 = require('http2'), tls = require('tls')
const url = new URL(process.argv[1]), proxy = new URL(process.env.HTTPS_PROXY)
const credentials = Buffer.from(decodeURIComponent(proxy.username + ':' + proxy.password)).toString('base64')
const headers = {host: url.hostname + ':443', 'proxy-authorization': 'Basic ' + credentials}
http.request({host: proxy.hostname, port: proxy.port, method: 'CONNECT', path: headers.host, headers})
  .on('connect', (granted, socket) => {
    if (granted.statusCode !== 200) process.exit(4)
    const createConnection = () => tls.connect({socket, servername: url.hostname, ALPNProtocols: ['h2']})
    const session = http2.connect(url, {createConnection})
    const request = session.request({':path': url.pathname})
    let status, body = ''
    request.on('response', answer => status = answer[':status'])
    request.on('data', data => body += data)
    request.on('end', () => { console.log(status, body); session.close() })
  })
  .end()
"""
MCP = """
import asyncio, json, sys
from mcp import Client

async def main():
    async with Client(sys.argv[1]) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]
        result = await client.call_tool("read_ticket", {"number": 7})
        print(json.dumps({"tools": tools, "text": result.content[0].text}))

asyncio.run(main())
"""
CLIENTS = {
    "curl": ("sh", "-c", 'curl -sS -o body -w "%{http_code} " "$0" && cat body'),
    "urllib": (sys.executable, "-c", URLLIB),
    "requests": (sys.executable, "-c", REQUESTS),
    "httpx": (sys.executable, "-c", HTTPX),
    "aiohttp": (sys.executable, "-c", AIOHTTP),
    "node": ("node", "-e", NODE),
    "httpx by HTTP/2": (sys.executable, "-c", HTTPX_HTTP2),
    "node by HTTP/2": ("node", "-e", NODE_HTTP2),
}


@dataclass
class World:
    tickets: Tickets
    trust: Path

    @property
    def proxy(self) -> str:
        return self.tickets.proxy

    @property
    def port(self) -> int:
        return int(self.proxy.rpartition(":")[2])

    def refused(self, code: str) -> list[dict[str, Any]]:
        return [each for each in self.tickets.place.audit if each.get("code") == code]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, opa_binary: Path) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("https")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        listen = {"ca_dir": f"{memory}/ca", "trust_dir": "trust"}
        egress = {host: {"mode": "splice"} for host in ("pinned.invalid", "localhost")}
        authority = {"task_binding": "handle"}
        policy = {"deadline_ms": 1000}  # a busy machine is not what is under test
        with tickets(
            directory, opa_binary, listen=listen, egress=egress, authority=authority, policy=policy
        ) as running:
            yield World(running, directory / "trust")


async def _run(
    *command: str, at: Path, check: bool = True, variables: dict[str, str] | None = None
) -> tuple[int, str, str]:
    """What a program prints, with these variables."""
    kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**kept, **(variables or {})}, cwd=at
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    code = process.returncode or 0
    assert code == 0 or not check, err.decode()
    return code, out.decode(), err.decode()


@pytest.mark.parametrize("name", CLIENTS)
async def test_an_unmodified_client_reaches_what_is_granted_and_nothing_else(
    world: World, name: str, tmp_path: Path
) -> None:
    async with (
        world.tickets.orchestrator() as orchestrator,
        orchestrator.task("show", [SHOW]) as task,
    ):
        variables = task.env(world.proxy, world.trust)
        _, out, _ = await _run(*CLIENTS[name], URL, at=tmp_path, variables=variables)
        status, _, body = out.partition(" ")
        seen = json.loads(body)
        assert (status, seen["path"]) == ("200", "/tickets/7")
        assert seen["headers"]["taskgrant-task"] == task.id
        assert "proxy-authorization" not in seen["headers"]
        before = len(world.tickets.requests)
        _, out, _ = await _run(*CLIENTS[name], REFUSED, at=tmp_path, variables=variables)
        status, _, body = out.partition(" ")
        assert (status, json.loads(body)["code"]) == ("403", "no_grant")
        code, _, _ = await _run(
            *CLIENTS[name], "https://elsewhere.example/", at=tmp_path, check=False, variables=variables
        )
        assert code != 0
        assert len(world.tickets.requests) == before
    assert world.refused("unknown_server")[-1]["dialled"] == "elsewhere.example:443"


async def test_the_mcp_client_by_https(world: World, tmp_path: Path) -> None:
    async with (
        world.tickets.orchestrator() as orchestrator,
        orchestrator.task("read", [READ]) as task,
    ):
        variables = task.env(world.proxy, world.trust)
        _, out, _ = await _run(
            sys.executable, "-c", MCP, "https://office.internal/mcp", at=tmp_path, variables=variables
        )
    told = json.loads(out)
    assert told["tools"] == ["read_ticket"]
    assert "toner" in told["text"]


async def test_a_client_that_does_not_trust_the_ca_goes_nowhere_and_is_on_record(
    world: World, tmp_path: Path
) -> None:
    async with (
        world.tickets.orchestrator() as orchestrator,
        orchestrator.task("show", [SHOW]) as task,
    ):
        before = len(world.tickets.requests)
        variables = {**task.env(world.proxy), "HTTPS_PROXY": task.env(world.proxy)["HTTP_PROXY"]}
        code, _, err = await _run("curl", "-sS", URL, at=tmp_path, check=False, variables=variables)
        assert code == 60, err
        assert len(world.tickets.requests) == before
    assert "unknown ca" in world.refused("unsupported")[-1]["reason"]


async def test_without_a_task_or_with_a_wrong_handle_there_is_an_answer_to_read(
    world: World, tmp_path: Path
) -> None:
    async with (
        world.tickets.orchestrator() as orchestrator,
        orchestrator.task("one", [SHOW]) as one,
        orchestrator.task("two", [SHOW]) as two,
    ):
        variables = one.env(world.proxy, world.trust)
        before = len(world.tickets.requests)
        plain = world.proxy.removeprefix("http://")
        for proxy, arguments, code in (
            (f"http://{plain}", (), "no_task"),
            (f"http://task:guessed@{plain}", (), "handle_invalid"),
            (variables["HTTPS_PROXY"], ("-H", f"Taskgrant-Task: {two.handle}"), "handle_invalid"),
        ):
            given = {**variables, "HTTPS_PROXY": proxy, "https_proxy": proxy}
            _, out, _ = await _run("curl", "-sS", *arguments, URL, at=tmp_path, variables=given)
            assert json.loads(out)["code"] == code
        assert len(world.tickets.requests) == before
        _, out, _ = await _run(
            "curl", "-sS", "-H", f"Taskgrant-Task: {one.handle}", URL, at=tmp_path, variables=variables
        )
        assert json.loads(out)["headers"]["taskgrant-task"] == one.id


async def test_plain_http_through_a_tunnel_is_decided_on_as_well(world: World, tmp_path: Path) -> None:
    async with (
        world.tickets.orchestrator() as orchestrator,
        orchestrator.task("show", [SHOW]) as task,
    ):
        variables = task.env(world.proxy, world.trust)
        for url in ("http://tickets.internal/tickets/7", "http://tickets.internal:8080/tickets/7"):
            _, out, _ = await _run("curl", "-sS", "--proxytunnel", url, at=tmp_path, variables=variables)
            assert json.loads(out)["path"] == "/tickets/7"
        _, out, _ = await _run(
            "curl", "-sS", "--proxytunnel", "-H", "Host: office.internal", "http://tickets.internal/mcp",
            at=tmp_path, variables=variables,
        )  # fmt: skip
        assert json.loads(out)["code"] == "misdirected"


async def test_an_answer_to_connect_says_what_was_refused(world: World) -> None:
    def ask() -> bytes:
        with socket.create_connection(("127.0.0.1", world.port), 30) as proxy:
            proxy.sendall(b"CONNECT elsewhere.example:443 HTTP/1.1\r\n\r\n")
            return b"".join(iter(lambda: proxy.recv(65536), b""))

    head, _, body = (await asyncio.to_thread(ask)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 Not Found (unknown_server)\r\n")
    assert json.loads(body)["code"] == "unknown_server"


async def test_many_requests_of_a_connection_are_each_decided_on(world: World) -> None:
    """Allowed, refused and misdirected ones, pipelined in one tunnel."""

    def talk(handle: str) -> bytes:
        trust = ssl.create_default_context(cafile=str(world.trust / "ca.pem"))
        raw = socket.create_connection(("127.0.0.1", world.port), 30)
        raw.sendall(
            b"CONNECT tickets.internal:443 HTTP/1.1\r\nProxy-Authorization: Bearer %s\r\n\r\n"
            % handle.encode()
        )
        assert raw.recv(65536).startswith(b"HTTP/1.1 200")
        with trust.wrap_socket(raw, server_hostname="tickets.internal") as tls:
            request = "GET {} HTTP/1.1\r\nHost: {}\r\n\r\n"
            for path, host in (
                ("/tickets/7", "tickets.internal"), ("/tickets", "tickets.internal:443"),
                ("/tickets/8", "TICKETS.internal"), ("/mcp", "office.internal"), ("/tickets/9", "tickets.internal"),
            ):  # fmt: skip
                tls.sendall(request.format(path, host).encode())
            return b"".join(iter(lambda: tls.recv(65536), b""))

    async with (
        world.tickets.orchestrator() as orchestrator,
        orchestrator.task("show", [SHOW]) as task,
    ):
        before = len(world.tickets.requests)
        answer = await asyncio.to_thread(talk, str(task.handle))
        statuses = re.findall(rb"HTTP/1\.1 (\d+)", answer)
        assert statuses == [b"200", b"403", b"200", b"421"]
        assert [each["path"] for each in world.tickets.requests[before:]] == ["/tickets/7", "/tickets/8"]


TUNNELS = ["tickets.internal:443", "office.internal:443", "tickets.internal:853", "elsewhere.example:443"]
NAMES = ["tickets.internal", "office.internal", "elsewhere.example", None]
HOSTS: list[list[str]] = [
    ["tickets.internal"],
    ["office.internal"],
    ["elsewhere.example"],
    [],
    ["tickets.internal", "tickets.internal"],
]


@pytest.fixture(scope="module")
def said(world: World) -> Iterator[tuple[World, str]]:
    """A running task's handle."""
    client = SyncTaskgrantClient(world.tickets.place.control)
    started = client.start({"purpose": "show", "grants": [SHOW]})
    yield world, str(started.handle)
    client.complete(started.task.id)


@pytest.mark.parametrize("tunnel", TUNNELS)
@pytest.mark.parametrize("name", NAMES)
def test_tunnel_tls_and_host_name_one_server(said: tuple[World, str], tunnel: str, name: str | None) -> None:
    """All combinations; the tool is reached when all three say its name, and it is asked for what was granted."""
    world, handle = said
    trust = ssl.create_default_context(cafile=str(world.trust / "ca.pem"))
    trust.check_hostname = False
    for hosts in HOSTS:
        before = len(world.tickets.requests)
        with socket.create_connection(("127.0.0.1", world.port), 30) as raw:
            raw.sendall(f"CONNECT {tunnel} HTTP/1.1\r\nProxy-Authorization: Bearer {handle}\r\n\r\n".encode())
            granted = raw.recv(65536)[9:12]
            if tunnel not in TUNNELS[:2]:
                assert granted == b"404"
                continue
            assert granted == b"200"
            if name != tunnel.partition(":")[0]:
                with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
                    trust.wrap_socket(raw, server_hostname=name)
                assert len(world.tickets.requests) == before
                continue
            with trust.wrap_socket(raw, server_hostname=name) as tls:
                lines = ["GET /tickets/7 HTTP/1.1", *(f"Host: {each}" for each in hosts), "Connection: close"]
                tls.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
                answer = tls.recv(65536)
                status = int(answer.split(b" ")[1])
        reached = len(world.tickets.requests) - before
        if len(hosts) != 1:
            assert (status, reached) == (400, 0)
        elif hosts[0] != name:
            assert (status, reached) == (421, 0)
        else:
            assert (status, reached) == ((200, 1) if name == "tickets.internal" else (400, 0))


async def test_streams_of_one_connection_are_decided_on_one_by_one(world: World) -> None:
    """Allowed, refused and misdirected ones at once, and one of an MCP server's on a connection of its own."""
    async with (
        world.tickets.orchestrator() as orchestrator,
        orchestrator.task("show", [SHOW]) as task,
    ):
        before = len(world.tickets.requests)
        async with http2(world, "tickets.internal", str(task.handle)) as client:
            streams = [
                client.ask(client.fields(path, authority=authority))
                for _ in range(3)
                for path, authority in (
                    ("/tickets/7", "tickets.internal"), ("/tickets", "tickets.internal"), ("/mcp", "office.internal"),
                )
            ]  # fmt: skip
            answers = [await client.answer(stream) for stream in streams]
            assert [answered.status for answered in answers] == [200, 403, 421] * 3
            assert json.loads(answers[1].body)["code"] == "no_grant"
        assert [each["path"] for each in world.tickets.requests[before:]] == ["/tickets/7"] * 3


async def test_a_tasks_end_is_its_connections_end(world: World) -> None:
    async with world.tickets.orchestrator() as orchestrator:
        async with orchestrator.task("show", [SHOW]) as task:
            handle = str(task.handle)
            async with contextlib.AsyncExitStack() as stack:
                client = await stack.enter_async_context(http2(world, "tickets.internal", handle))
                assert (await client.get("/tickets/7")).status == 200
                kept = stack.pop_all()
        async with kept:
            assert await client.gone() == 0


@contextlib.asynccontextmanager
async def http2(world: World, host: str, handle: str) -> AsyncIterator[Client]:
    """A client by its frames, in a tunnel, over TLS."""
    trust = ssl.create_default_context(cafile=str(world.trust / "ca.pem"))
    trust.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    try:
        writer.write(f"CONNECT {host}:443 HTTP/1.1\r\nProxy-Authorization: Bearer {handle}\r\n\r\n".encode())
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        await writer.start_tls(trust, server_hostname=host)
        yield Client(reader, writer, "https", host)
    finally:
        writer.transport.abort()


async def test_what_may_be_let_through_needs_a_task_and_leads_nowhere_near(
    world: World, tmp_path: Path
) -> None:
    async with (
        world.tickets.orchestrator() as orchestrator,
        orchestrator.task("show", [SHOW]) as task,
    ):
        granted = task.env(world.proxy, world.trust)
        without = {**granted, "HTTPS_PROXY": world.proxy, "https_proxy": world.proxy}
        for host, variables, reason in (
            ("pinned.invalid", without, "no_task"),
            ("pinned.invalid", granted, "upstream_unreachable"),
            ("localhost", granted, "forbidden"),
        ):
            code, _, err = await _run(
                "curl", "-sS", f"https://{host}/", at=tmp_path, check=False, variables=variables
            )
            assert (code, "alert" in err) == (35, True), err
            assert world.refused(reason)[-1]["dialled"] == f"{host}:443"
    unread = [each for each in world.tickets.place.audit if each["event"] == "egress.decided"]
    assert [(each["mode"], each["action"]) for each in unread] == [("splice", "refuse")] * 3


async def test_a_restart_keeps_the_agents_trust(place: Installation, tmp_path: Path) -> None:
    """An agent that read its trust from the first sidecar goes on with the second."""
    operation = {"tool": "show", "method": "GET", "path": "/"}
    place.servers["tickets"] = {
        "protocol": "http",
        "upstream": "https://127.0.0.1:9",
        "hosts": ["tickets.internal"],
        "operations": [operation],
    }
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        place.sections = {"listen": {"ca_dir": f"{memory}/ca", "trust_dir": "trust"}}
        place.run().kill()
        trusted = tmp_path / "as-it-was.pem"
        trusted.write_bytes((tmp_path / "trust" / "ca.pem").read_bytes())
        place.run()
        arguments = (
            "-sS",
            "--cacert",
            str(trusted),
            "-x",
            place.addresses["proxy"],
            "https://tickets.internal/",
        )
        _, out, _ = await _run("curl", *arguments, at=tmp_path)
        assert json.loads(out)["code"] == "no_task"


async def test_a_ca_directory_on_a_disk_keeps_the_sidecar_from_starting(place: Installation) -> None:
    place.servers["tickets"] = {"protocol": "mcp", "upstream": "https://127.0.0.1:9/"}
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as disk:
        place.sections = {"listen": {"ca_dir": disk}}
        process = place.python("-m", "taskgrant.cli.main", "run", str(place.write()))
        assert await asyncio.to_thread(process.popen.wait, 60) == 3
        assert "not in memory" in process.log()
        assert os.listdir(disk) == []
