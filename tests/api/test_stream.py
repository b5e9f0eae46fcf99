"""Events as server-sent events: whole, resumable, and let go of when the peer leaves."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from taskgrant.model.principal import Role
from tests.api.support import Served, served


async def events(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, str]]:
    event: dict[str, str] = {}
    async for raw in response.content:
        line = raw.decode().rstrip("\n")
        if not line and event:
            yield event
            event = {}
        elif line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            event[name] = value


def stream(api: Served, query: str = "", **headers: str) -> Any:
    return api.session.get(f"http://control/v1/events{query}", headers=headers)


async def test_a_snapshot_then_changes_in_order(api: Served) -> None:
    async with stream(api) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        received = events(response)
        first = await anext(received)
        assert (first["event"], first["id"]) == ("snapshot", "memory:0")
        await api.ask("POST", "/v1/tasks", {"purpose": "a"})
        await api.ask("POST", "/v1/tasks/task-0000/complete")
        told = [await anext(received) for _ in range(2)]
        assert [one["event"] for one in told] == ["task", "revocation"]
        document = json.loads(told[1]["data"])
        assert document["cursor"] == told[1]["id"] == "memory:2"
        assert document["body"] == {"tasks": ["task-0000"]}


@pytest.mark.parametrize("way", ["header", "query", "both"])
async def test_a_stream_resumes_where_it_was(api: Served, way: str) -> None:
    for _ in range(3):
        await api.ask("POST", "/v1/tasks", {"purpose": "a"})
    query = {"header": "", "query": "?after=memory:2", "both": "?after=memory:0"}[way]
    headers = {} if way == "query" else {"Last-Event-ID": "memory:2"}
    async with stream(api, query, **headers) as response:
        assert (await anext(events(response)))["id"] == "memory:3"


async def test_another_epoch_means_a_snapshot(api: Served) -> None:
    async with stream(api, **{"Last-Event-ID": "before:7"}) as response:
        assert (await anext(events(response)))["event"] == "snapshot"


async def test_what_is_no_cursor_is_refused_before_the_stream(api: Served) -> None:
    assert (await api.problem("GET", "/v1/events?after=nothing"))["code"] == "invalid"


async def test_a_refusal_on_the_way_is_the_last_event(api: Served) -> None:
    async with stream(api, "?after=memory:99") as response:
        (told,) = [event async for event in events(response)]
        assert told["event"] == "problem"
        assert json.loads(told["data"])["code"] == "conflict"


async def test_a_peer_that_leaves_is_unsubscribed_at_once(api: Served) -> None:
    async with stream(api, "?subscriber=guard-1") as response:
        await anext(events(response))
        assert api.authority.subscribers == ["guard-1"]
        response.close()
        await api.authority.unsubscribed()


async def test_stopping_ends_streams(api: Served) -> None:
    async with stream(api) as response:
        received = events(response)
        await anext(received)
        await api.server.stop()
        assert api.authority.subscribers == []


async def test_only_those_who_enforce_subscribe_by_name(tmp_path: Path) -> None:
    async with served(tmp_path, [Role.ORCHESTRATOR]) as api:
        problem = await api.problem("GET", "/v1/events?subscriber=guard-1")
        assert problem["code"] == "forbidden"


async def test_silence_is_broken_by_comments(tmp_path: Path) -> None:
    async with served(tmp_path, ping_interval=0.01) as api, stream(api) as response:
        async for raw in response.content:
            if raw.startswith(b":"):
                break
