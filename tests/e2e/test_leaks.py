"""Tasks leave nothing behind, thousands of them, started and completed through the API of one process.

The authority alone is put through ten thousand in tests/authority; ``TASKGRANT_LEAK_TASKS=10000`` does it here.
"""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskgrant.client import TaskgrantClient
from tests.e2e.tools import PLAIN, World, echo, get, grant, until, world

TASKS = int(os.environ.get("TASKGRANT_LEAK_TASKS", "2500"))
AT_ONCE = 8
#: Every so many tasks, one makes a call: with its own credential, pool and connection.
CALLS = 5
WARM = TASKS // 3
LIVE = ("tasks", "grants", "credentials", "calls", "streams", "pools")


@pytest.fixture
def running(tmp_path: Path, opa_binary: Path) -> Iterator[World]:
    # What is bounded by design is bounded low, so that it is full when the warm-up is over.
    kept = {"task_binding": "handle", "event_buffer": 500, "ended_kept": 50}
    with world(tmp_path, opa_binary, authority=kept) as made:
        yield made


async def test_thousands_of_tasks_leave_nothing_behind(running: World) -> None:
    async with running.tool(PLAIN, echo) as tool, running.orchestrator as client:
        await _tasks(running, client, 50)
        await until(lambda: not tool.open)
        before = await _seen(running)
        await _tasks(running, client, WARM)
        warm = _resident(running)
        await _tasks(running, client, TASKS - WARM)
        assert len(tool.requests) >= TASKS // CALLS
        assert len(set(tool.serials)) == len(tool.requests)  # a credential each
        await until(lambda: not tool.open)  # every connection was closed with its task
        after = await _seen(running)
        # Kept connections to policy are as many as there were questions at once, which warming up may not have reached.
        assert after.pop("descriptors") - before.pop("descriptors") <= AT_ONCE
        assert after == before
        assert {name: after[f"taskgrant_live_{name}"] for name in LIVE} == dict.fromkeys(LIVE, 0.0)
        assert _resident(running) < warm * 1.15


async def _tasks(running: World, client: TaskgrantClient, count: int) -> None:
    async def one(number: int) -> None:
        spec = {"purpose": "one of many", "grants": [grant(PLAIN, "read", max_uses=1)]}
        started = await client.start(spec)
        if number % CALLS == 0:
            assert (await running.answer(get(), started.handle)).code == "allowed"
        await client.complete(started.task.id)

    async def some(first: int) -> None:
        for number in range(first, count, AT_ONCE):
            await one(number)

    await asyncio.gather(*(some(first) for first in range(AT_ONCE)))


async def _seen(running: World) -> dict[str, float]:
    """Gauges and descriptors, once the last connections are closed: two looks in a row that agree."""
    last: dict[str, float] = {}
    async with asyncio.timeout(20):
        while True:
            seen = await running.metrics()
            held = {name: value for name, value in seen.items() if name.startswith("taskgrant_live_")}
            held["descriptors"] = _descriptors(running)
            if held == last:
                return held
            last = held
            await asyncio.sleep(0.3)


def _descriptors(running: World) -> int:
    return len(list(Path(f"/proc/{running.sidecar.pid}/fd").iterdir()))


def _resident(running: World) -> int:
    """Bytes of memory, of the sidecar alone."""
    pages = int(Path(f"/proc/{running.sidecar.pid}/statm").read_text().split()[1])
    return pages * 4096
