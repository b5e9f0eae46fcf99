"""Opening: one holder, private files, epochs."""

import asyncio
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from taskgrant.errors import ConfigurationError
from taskgrant.model.call import Refusal
from taskgrant.model.ids import CallId
from taskgrant.model.task import TaskState
from tests.authority.support import MAIL, ORCHESTRATOR, ManualClock, new_csr, opened, record, spec


async def test_files_are_private(tmp_path: Path):
    state = tmp_path / "state"
    async with opened(state) as s:
        await s.authority.start(spec(MAIL), ORCHESTRATOR, None)
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
        for file in state.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


async def test_a_second_instance_is_refused_and_told_who_holds_it(tmp_path: Path):
    async with opened(tmp_path):
        with pytest.raises(ConfigurationError, match=f"process {os.getpid()} holds it"):
            async with opened(tmp_path):
                pass
    async with opened(tmp_path):
        pass


async def test_a_lock_dies_with_its_process(tmp_path: Path):
    lock = tmp_path / "authority.lock"
    code = f"import fcntl, os; fd = os.open({str(lock)!r}, os.O_RDWR | os.O_CREAT); fcntl.flock(fd, fcntl.LOCK_EX)"
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], check=True)
    async with opened(tmp_path):
        pass


@pytest.mark.parametrize("content", [b"this is no database at all" * 100])
async def test_a_database_that_is_none(tmp_path: Path, content: bytes):
    (tmp_path / "authority.db").write_bytes(content)
    with pytest.raises(ConfigurationError, match="cannot be used"):
        async with opened(tmp_path):
            pass


async def test_a_directory_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="state_dir"):
        async with opened(tmp_path / "file" / "state"):
            pass


async def test_tasks_live_on_within_a_boot_and_end_with_it(tmp_path: Path):
    async with opened(tmp_path) as s:
        started = await s.authority.start(spec(MAIL), ORCHESTRATOR, None)
        await s.authority.issue(started.task.id, "mail", new_csr())
    async with opened(tmp_path) as s:
        task, grants = await s.authority.task(started.task.id)
        assert task.live
        assert grants == started.grants
    async with opened(tmp_path, boot_id="boot-2") as s:
        task, grants = await s.authority.task(started.task.id)
        assert (task.state, task.ended_by) == (TaskState.REVOKED, "taskgrant")
        assert not grants[0].state.live
        assert "restarted" in s.trail.fields("task.ended")[0]["reason"]
    async with opened(tmp_path) as s:  # nor does it come back with the old name
        assert not (await s.authority.task(started.task.id))[0].live


async def test_what_came_due_while_nothing_ran(tmp_path: Path):
    clock = ManualClock()
    async with opened(tmp_path, clock=clock) as s:
        started = await s.authority.start(spec(MAIL, expires_in=60), ORCHESTRATOR, None)
    clock.advance(61)
    async with opened(tmp_path, clock=clock) as s:
        assert (await s.authority.task(started.task.id))[0].state is TaskState.EXPIRED


async def test_the_clock_is_held_within_a_boot(tmp_path: Path):
    clock = ManualClock()
    clock.offset = 77.0
    async with opened(tmp_path, clock=clock):
        pass
    later = ManualClock()
    async with opened(tmp_path, clock=later):
        assert later.offset == 77.0
    other = ManualClock()
    async with opened(tmp_path, clock=other, boot_id="boot-2"):
        assert other.offset == 0.0


async def test_uses_that_were_open_stay_used_and_are_told(tmp_path: Path):
    async with opened(tmp_path) as s:
        started = await s.authority.start(spec(MAIL), ORCHESTRATOR, None)
        use = await s.authority.ledger.reserve(started.grants[0].id, CallId("c1"), None, record())
        assert not isinstance(use, Refusal)
    async with opened(tmp_path) as s:
        (grant,) = (await s.authority.task(started.task.id))[1]
        assert (grant.used, grant.in_flight) == (1, 0)
        assert s.trail.fields("use.settled")[0]["outcome"] == "outcome_unknown"
    async with opened(tmp_path) as s:
        assert s.trail.fields("use.settled") == []
