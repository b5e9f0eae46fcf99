"""The proxy listener, with clients that know nothing of it but HTTP_PROXY; tasks are told apart by their handles."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.office import READ
from tests.e2e.tickets import SHOW, Tickets, tickets

URL = "http://tickets.internal/tickets/7"

#: A program that only knows an address, and gets its proxy from the environment as any program does.
URLLIB = """
import sys, urllib.error, urllib.request
try:
    with urllib.request.urlopen(sys.argv[1]) as answer:
        print(answer.read().decode())
except urllib.error.HTTPError as refused:
    print(refused.read().decode())
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


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, opa_binary: Path) -> Iterator[Tickets]:
    directory = tmp_path_factory.mktemp("proxy")
    with tickets(directory, opa_binary, authority={"task_binding": "handle"}) as running:
        yield running


async def _run(*command: str, **variables: str) -> str:
    """What a program prints, in an environment with these variables."""
    kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**kept, **variables}
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    return out.decode()


async def _curl(world: Tickets, *arguments: str) -> tuple[int, Any]:
    answer = await _run("curl", "-sS", "-x", world.proxy, "-w", "\n%{http_code}", *arguments)
    body, _, status = answer.rpartition("\n")
    return int(status), json.loads(body)


async def test_curl_with_the_handle_as_its_proxy_credentials(world: Tickets) -> None:
    async with world.orchestrator() as orchestrator, orchestrator.task("show", [SHOW]) as task:
        status, seen = await _curl(world, "-U", f"task:{task.handle}", URL)
        assert (status, seen["path"]) == (200, "/tickets/7")
        assert str(task.handle) not in json.dumps(world.requests)
        assert "proxy-authorization" not in seen["headers"]
        assert (await _curl(world, "-H", f"Taskgrant-Task: {task.handle}", URL))[0] == 200
        assert (await _curl(world, "-U", f"task:{task.handle}", "http://TICKETS.internal:8080/tickets/7"))[
            0
        ] == 200


async def test_an_environment_is_all_that_a_program_needs(world: Tickets) -> None:
    async with world.orchestrator() as orchestrator, orchestrator.task("show", [SHOW, READ]) as task:
        variables = task.env(world.proxy)
        seen = json.loads(await _run(sys.executable, "-c", URLLIB, URL, **variables))
        assert seen["headers"]["taskgrant-task"] == task.id
        refused = json.loads(await _run(sys.executable, "-c", URLLIB, f"{URL}/comments", **variables))
        assert refused["code"] == "unknown_operation"
        told = json.loads(await _run(sys.executable, "-c", MCP, "http://office.internal/mcp", **variables))
        assert told["tools"] == ["read_ticket"]
        assert "toner" in told["text"]
    refused = json.loads(await _run(sys.executable, "-c", URLLIB, URL, **variables))
    assert refused["code"] == "task_ended"


async def test_tasks_at_the_same_time_are_told_apart(world: Tickets) -> None:
    async with (
        world.orchestrator() as orchestrator,
        orchestrator.task("one", [SHOW]) as one,
        orchestrator.task("two", [{**SHOW, "max_uses": 1}]) as two,
        orchestrator.task("three") as three,
    ):
        for task, expected in ((one, 200), (two, 200), (three, 403), (one, 200), (two, 403)):
            status, seen = await _curl(world, "-U", f"task:{task.handle}", URL)
            assert status == expected
            if status == 200:
                assert seen["headers"]["taskgrant-task"] == task.id


async def test_a_handle_that_is_missing_wrong_or_contradicted_is_final(world: Tickets) -> None:
    async with (
        world.orchestrator() as orchestrator,
        orchestrator.task("one", [SHOW]) as one,
        orchestrator.task("two", [SHOW]) as two,
    ):
        before = len(world.requests)
        for arguments in (
            (),
            ("-U", "task:guessed"),
            ("-U", f"task:{one.handle}x"),
            ("-U", f"other:{one.handle}"),
            ("-U", f"task:{one.handle}", "-H", f"Taskgrant-Task: {two.handle}"),
            ("-H", f"Taskgrant-Task: {one.handle}", "-H", f"Taskgrant-Task: {one.handle}"),
            ("-H", f"Authorization: Bearer {one.handle}"),
        ):
            status, problem = await _curl(world, *arguments, URL)
            assert status == 403, arguments
            assert problem["code"] in ("handle_invalid", "no_task"), arguments
        assert len(world.requests) == before


@pytest.mark.parametrize(
    "url",
    [
        "http://elsewhere.example/tickets/7", "http://tickets.internal:81/tickets/7", "http://tickets.internal./tickets/7",
        "http://127.0.0.1/tickets/7", "http://169.254.169.254/latest/meta-data", "http://tickets.internal.evil.example/x",
    ],
)  # fmt: skip
async def test_only_hosts_of_the_catalogue_are_reached(world: Tickets, url: str) -> None:
    async with world.orchestrator() as orchestrator, orchestrator.task("show", [SHOW]) as task:
        before = len(world.requests)
        status, problem = await _curl(world, "-U", f"task:{task.handle}", url)
        assert (status, problem["code"]) in ((404, "unknown_server"), (400, "malformed"))
        # What is dialled counts, not what the request says of itself.
        named = ("-H", "Host: tickets.internal")
        status, problem = await _curl(world, "-U", f"task:{task.handle}", *named, url)
        assert status in (400, 404)
        assert len(world.requests) == before


@pytest.mark.parametrize(
    ("request_line", "code"),
    [
        ("CONNECT elsewhere.example:443", "unknown_server"),
        ("CONNECT 169.254.169.254:80", "unknown_server"),
        ("GET /tickets/7", "unsupported"),
        ("GET https://tickets.internal/tickets/7", "unsupported"),
    ],
)
async def test_what_the_proxy_does_not_do_is_refused_in_words(
    world: Tickets, request_line: str, code: str
) -> None:
    host = request_line.split()[1] if request_line.startswith("CONNECT") else "tickets.internal"
    request = f"{request_line} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    head, body = await asyncio.to_thread(_exchange, world, request)
    assert head.split(b" ")[1].startswith((b"4", b"5"))
    assert json.loads(body)["code"] == code
    assert json.loads(body)["detail"]


def _exchange(world: Tickets, request: bytes) -> tuple[bytes, bytes]:
    host, _, port = world.proxy.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), 20) as connection:
        connection.sendall(request)
        answer = b""
        while data := connection.recv(65536):
            answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body
