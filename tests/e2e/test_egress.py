"""Traffic that is no tool call, of an unmodified client, to a real model API: by rules of its own, in a task."""

import asyncio
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.model_api import BLOCK, ModelApi, model_api
from tests.e2e.processes import wait_for
from tests.e2e.tickets import Tickets, tickets

API = "https://api.model.test"
KEY = "sk-0123456789"
RULES = {
    "taskgrant": {
        "destinations": {
            "api.model.test": {
                "allow": [
                    {"methods": ["POST"], "paths": ["/v1/messages"]},
                    {"methods": ["GET"], "paths": ["/blob", "/v1/models/*"]},
                ],
                "members": ["model", "messages", "stream", "tools"],
                "hosted_tools": ["web_search"],
            },
            "wrong.model.test": {"allow": [{"methods": ["GET"], "paths": ["/"]}], "without_task": True},
        }
    }
}
HOST = {"headers": ["anthropic-version"], "secrets": ["x-api-key"]}
#: How curl ends when an answer does.
CUT_SHORT = (18, 56, 92)
ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


@dataclass
class World:
    tickets: Tickets
    api: ModelApi
    trust: Path

    def curl(self, url: str, *arguments: str) -> list[str]:
        return [
            "curl", "-sS", "--max-time", "30", "--proxy", self.tickets.proxy,
            "--cacert", str(self.trust / "bundle.pem"),
            "-H", f"x-api-key: {KEY}", "-H", "anthropic-version: 2023-06-01", *arguments, url,
        ]  # fmt: skip

    async def ask(self, path: str, body: Any = None, *more: str, host: str = API) -> tuple[int, bytes]:
        """Status and body."""
        given = () if body is None else ("-H", "content-type: application/json", "-d", json.dumps(body))
        command = self.curl(host + path, "-w", "\n%{http_code}", *given, *more)
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, env=_PLAIN)
        told, _ = await process.communicate()
        answer, _, status = told.rpartition(b"\n")
        return int(status), answer

    def audit(self, event: str) -> list[dict[str, Any]]:
        return [each for each in self.tickets.place.audit if each["event"] == event]


_PLAIN = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, opa_binary: Path) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("egress")
    with ExitStack() as stack:
        memory = stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm"))
        api = stack.enter_context(model_api(directory))
        (directory / "policy").mkdir(exist_ok=True)
        (directory / "policy" / "destinations.json").write_text(json.dumps(RULES))
        egress = {
            "api.model.test": {"upstream": api.url, "trust": str(api.roots), **HOST},
            "wrong.model.test": {"upstream": api.url},
        }
        listen = {"ca_dir": f"{memory}/ca", "trust_dir": "trust"}
        running = stack.enter_context(tickets(directory, opa_binary, listen=listen, egress=egress))
        yield World(running, api, directory / "trust")


async def test_what_policy_lets_pass_arrives_with_the_agents_own_key(world: World) -> None:
    async with world.tickets.at_work() as (_, task):
        status, body = await world.ask("/v1/messages?beta=true", ASKED)
        assert (status, body) == (200, b'{"answer":42}')
        # The same by plain http, which leaves as https.
        assert (await world.ask("/v1/messages", ASKED, host="http://api.model.test"))[0] == 200
    first, second = world.api.requests[-2:]
    assert (first["target"], json.loads(first["body"])) == ("/v1/messages?beta=true", ASKED)
    assert first["headers"]["x-api-key"] == second["headers"]["x-api-key"] == KEY
    assert first["headers"]["host"] == f"localhost:{world.api.port}"
    assert not {"proxy-authorization", "via", "x-forwarded-for", "authorization"} & set(first["headers"])
    decided = world.audit("egress.decided")[-2:]
    assert [each["action"] for each in decided] == ["pass", "pass"]
    assert (decided[0]["task"], decided[0]["path"], decided[0]["server"]) == (
        task.id,
        "/v1/messages",
        "api.model.test",
    )
    assert decided[0]["decision_id"]
    settled = world.audit("egress.settled")[-1]
    assert (settled["outcome"], settled["status"], settled["received"]) == ("completed", 200, 13)
    assert KEY not in (world.tickets.place.directory / "audit.jsonl").read_text()


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/v1/files", ASKED, "denied_by_policy"),
        ("/v1/messages/../files", ASKED, "malformed"),
        ("/v1/models/a%2fb", None, "granted"),
        ("/v1/models/a/b", None, "denied_by_policy"),
        ("/v1/messages", {**ASKED, "container": "c"}, "arguments_refused"),
        ("/v1/messages", {**ASKED, "tools": [{"type": "web_search"}]}, "granted"),
        ("/v1/messages", {**ASKED, "tools": [{"type": "code_interpreter"}]}, "arguments_refused"),
        ("/v1/messages", {**ASKED, "tools": [{"type": "mcp", "server_url": "https://evil.test"}]}, "arguments_refused"),
        ("/v1/messages", [ASKED], "malformed"),
    ],
)  # fmt: skip
async def test_each_request_is_decided_on(world: World, path: str, body: Any, code: str) -> None:
    before = len(world.api.requests)
    async with world.tickets.at_work():
        status, answer = await world.ask(path, body, "--path-as-is")
    if code == "granted":
        assert (status, len(world.api.requests)) == (200, before + 1)
        return
    assert (json.loads(answer)["code"], len(world.api.requests)) == (code, before)
    assert world.audit("egress.decided")[-1]["code"] == code
    assert status in (400, 403)


async def test_without_a_task_nothing_passes_but_where_policy_says_so(world: World) -> None:
    before = len(world.api.requests)
    status, answer = await world.ask("/v1/messages", ASKED)
    assert (status, json.loads(answer)["code"]) == (403, "no_task")
    # Policy needs no task here, and the certificate is nobody's that the machine trusts.
    status, answer = await world.ask("/", host="https://wrong.model.test")
    assert (status, json.loads(answer)["code"]) == (502, "upstream_unreachable")
    assert len(world.api.requests) == before


async def test_a_stream_comes_as_it_is_made_and_ends_with_the_task(world: World, tmp_path: Path) -> None:
    out = tmp_path / "stream"
    async with world.tickets.at_work() as (_, task):
        command = world.curl(
            f"{API}/v1/messages", "-N", "-o", str(out), "-H", "content-type: application/json",
            "-d", json.dumps({**ASKED, "stream": True}),
        )  # fmt: skip
        process = await asyncio.create_subprocess_exec(*command, env=_PLAIN, stderr=subprocess.DEVNULL)
        await asyncio.to_thread(
            wait_for, lambda: out.exists() and b"token 3\n" in out.read_bytes(), "it streams"
        )
        ended = await task.complete()
        assert len(ended.begun) == 1
        assert await asyncio.wait_for(process.wait(), 30) in CUT_SHORT
    cut = ("cut", task.id)
    await asyncio.to_thread(
        wait_for,
        lambda: cut in [(each["outcome"], each["task"]) for each in world.audit("egress.settled")],
        "the end is on record",
    )


async def test_a_freeze_of_the_host_cuts_what_runs_and_stops_what_comes(world: World, tmp_path: Path) -> None:
    out = tmp_path / "stream"
    async with world.tickets.at_work(), world.tickets.orchestrator() as orchestrator:
        command = world.curl(
            f"{API}/v1/messages", "-N", "-o", str(out), "-H", "content-type: application/json",
            "-d", json.dumps({**ASKED, "stream": True}),
        )  # fmt: skip
        process = await asyncio.create_subprocess_exec(*command, env=_PLAIN, stderr=subprocess.DEVNULL)
        await asyncio.to_thread(wait_for, lambda: out.exists() and b"token" in out.read_bytes(), "it streams")
        await orchestrator.freeze("tool", "api.model.test")
        try:
            assert await asyncio.wait_for(process.wait(), 30) in CUT_SHORT
            status, answer = await world.ask("/v1/messages", ASKED)
            assert (status, json.loads(answer)["code"]) == (403, "frozen")
        finally:
            await orchestrator.unfreeze("tool", "api.model.test")


async def test_ten_megabytes_pass_at_no_less_than_half_the_bare_speed(world: World) -> None:
    size = 160 * len(BLOCK)
    direct = [
        "curl",
        "-sS",
        "--cacert",
        str(world.api.roots),
        "-o",
        "/dev/null",
        "-w",
        "%{size_download} %{time_total}",
    ]
    through = [
        *world.curl(f"{API}/blob?blocks=160"),
        "--http1.1",  # as the host speaks; frames of HTTP/2 cost more
        "-o",
        "/dev/null",
        "-w",
        "%{size_download} %{time_total}",
    ]
    best = 0.0
    async with world.tickets.at_work():
        deadline = time.monotonic() + 150  # a machine that is busy with other tests has no core for each side
        while best < 0.5 and time.monotonic() < deadline:
            seconds = []
            for command in ([*direct, f"{world.api.url}/blob?blocks=160"], through):
                process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, env=_PLAIN)
                told, _ = await process.communicate()
                received, took = told.split()
                assert int(received) == size
                seconds.append(float(took))
            best = max(best, seconds[0] / seconds[1])
    assert best >= 0.5
