"""Promises 6 and 7 against real processes: kill -9, a disk that is full, ten thousand tasks."""

import asyncio
import gc
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from taskgrant.model.call import Caller, Refusal
from taskgrant.model.codes import Code
from taskgrant.model.ids import CallId, GrantId
from taskgrant.model.task import Outcome
from tests.authority.support import MAIL, ORCHESTRATOR, Cutter, opened, record, spec

ROOT = Path(__file__).parents[2]
FSYNC = pytest.mark.parametrize("fsync", ["interval", "always"])


async def child(mode: str, directory: Path, *rest: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.authority.child", mode, str(directory), *rest,
        stdout=asyncio.subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip


async def lines(process: asyncio.subprocess.Process) -> list[str]:
    assert process.stdout is not None
    out = (await asyncio.wait_for(process.stdout.read(), 60)).decode().split("\n")[:-1]
    await process.wait()
    return out


async def killed_after(process: asyncio.subprocess.Process, number: int) -> int:
    """Kills the process once it has said so many lines; how many uses it had said by then and until its end."""
    assert process.stdout is not None
    used = 0
    for _ in range(number):
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        used += line == b"used\n"
        if line == b"over\n":
            break
    process.kill()
    rest = await process.stdout.read()
    await process.wait()
    return used + rest.count(b"used\n")


@FSYNC
async def test_a_killed_process_never_gives_a_use_twice(tmp_path: Path, fsync: str):
    (grant,) = await lines(await child("start", tmp_path, "1", fsync))
    first = await killed_after(await child("spend", tmp_path, grant, "a", fsync), 1)
    second = await killed_after(await child("spend", tmp_path, grant, "b", fsync), 5)
    assert (first, second) == (1, 0)
    async with opened(tmp_path / "state") as s:
        refusal = await s.authority.ledger.reserve(GrantId(grant), CallId("c"), None, record())
        assert isinstance(refusal, Refusal)
        assert refusal.code is Code.USES_EXHAUSTED
    assert "outcome_unknown" in (tmp_path / "trail").read_text()


@FSYNC
async def test_limits_hold_over_many_kills(tmp_path: Path, fsync: str):
    limit = 120
    (grant,) = await lines(await child("start", tmp_path, str(limit), fsync))
    used = 0
    for number, lived in enumerate((13, 1, 40, 29, 1000)):
        process = await child("spend", tmp_path, grant, f"run{number}", fsync)
        used += await killed_after(process, lived)
    assert 60 < used <= limit
    recorded = (tmp_path / "trail").read_text().count("call.decided")
    assert recorded >= used  # whoever was let pass was recorded first


async def test_a_full_disk_permits_nothing_and_still_severs(tmp_path: Path):
    said = await lines(await child("starve", tmp_path, "interval"))
    assert said == [
        *["reserve audit_unavailable"] * 3,
        *["refused audit_unavailable"] * 3,
        "ended None 1",
        "again",
    ]
    async with opened(tmp_path / "state") as s:
        assert all(not task.live for task in await s.authority.tasks(None, 10))


async def test_an_instance_that_was_taken_over_severs_everything(tmp_path: Path):
    async with opened(tmp_path) as s:
        cutter = Cutter()
        s.authority.attach(cutter)
        started = await s.authority.start(spec(MAIL), ORCHESTRATOR, None)
        with sqlite3.connect(tmp_path / "authority.db") as db:
            db.execute("UPDATE meta SET value = '99' WHERE key = 'instance'")
        db.close()
        refusal = await s.authority.ledger.reserve(started.grants[0].id, CallId("c"), None, record())
        assert isinstance(refusal, Refusal)
        assert refusal.code is Code.AUTHORITY_UNAVAILABLE
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert cutter.applied[0].tasks == {started.task.id}
        bound = s.authority.view.bind(Caller(uid=1, listener="gateway", handle=started.handle))
        assert isinstance(bound, Refusal)
        assert bound.code is Code.AUTHORITY_UNAVAILABLE


async def test_ten_thousand_tasks_leave_nothing_behind(tmp_path: Path):
    async def one(s, number: int) -> None:
        started = await s.authority.start(
            spec(replace(MAIL, max_uses=5, idle_timeout=60)), ORCHESTRATOR, None
        )
        use = await s.authority.ledger.reserve(started.grants[0].id, CallId(f"c{number}"), "id", record())
        await s.authority.ledger.settle(use, True, record())
        await s.authority.end(started.task.id, Outcome.COMPLETE, ORCHESTRATOR)

    async def many(s, begin: int, end: int) -> int:
        for number in range(begin, end, 50):
            await asyncio.gather(*(one(s, each) for each in range(number, number + 50)))
            s.trail.records.clear()
            s.decider.asked.clear()
        gc.collect()
        return sys.getallocatedblocks()

    async with opened(tmp_path, ended_kept=100, event_buffer=100) as s:
        before = len(asyncio.all_tasks())
        early = await many(s, 0, 2000)
        late = await many(s, 2000, 10_000)
        assert len(asyncio.all_tasks()) == before
        assert late - early < 8000  # less than one object for each task
