"""The writer: batches, order, what it does with jobs that fail, and with another instance."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from taskgrant.authority.store import schema, statements
from taskgrant.authority.store.writer import Unwritten, Writer
from taskgrant.model.codes import Code
from taskgrant.model.grant import GrantState
from taskgrant.model.record import Record
from tests.authority.support import MemoryTrail, record
from tests.authority.test_lifecycle import a_grant


class Bench:
    def __init__(self, path: Path, trail: MemoryTrail, writer: Writer) -> None:
        self.path, self.trail, self.writer = path, trail, writer

    def meta(self) -> dict[str, str]:
        with sqlite3.connect(self.path) as db:
            found = dict(db.execute("SELECT key, value FROM meta WHERE key <> 'instance'").fetchall())
        db.close()
        return found

    def write(self, sql: str) -> None:
        with sqlite3.connect(self.path) as db:
            db.execute(sql)
        db.close()


@asynccontextmanager
async def bench(
    directory: Path,
    *,
    trail: MemoryTrail | None = None,
    always_sync: bool = False,
    on_fenced: Callable[[], None] = lambda: None,
) -> AsyncIterator[Bench]:
    path = directory / "w.db"
    connection = schema.connect(path, "always" if always_sync else "interval")
    schema.prepare(connection)
    connection.execute("INSERT INTO meta VALUES ('instance', '1')")
    trail = trail or MemoryTrail()
    writer = Writer(connection, trail, 1, always_sync=always_sync, on_fenced=on_fenced)
    try:
        yield Bench(path, trail, writer)
    finally:
        await writer.close()


BAD = ("INSERT INTO meta VALUES ('instance', 'x')", ())


async def test_many_jobs_one_commit_each_in_order(tmp_path: Path):
    async with bench(tmp_path) as b:
        jobs = [b.writer.submit([statements.keep("k", str(n))], [record(f"r{n}")]) for n in range(100)]
        await asyncio.gather(*jobs)
        assert b.meta() == {"k": "99"}
        assert b.trail.events() == [f"r{n}" for n in range(100)]


async def test_posted_jobs_keep_their_place_and_need_nobody(tmp_path: Path):
    async with bench(tmp_path) as b:
        b.writer.post([statements.keep("k", "1")], [record("posted")])
        await b.writer.submit([statements.keep("k", "2")], [record("submitted")])
        assert b.trail.events() == ["posted", "submitted"]
        b.writer.post([statements.keep("k", "3")])
    assert b.meta() == {"k": "3"}


async def test_a_bad_job_harms_no_other(tmp_path: Path):
    async with bench(tmp_path) as b:
        outcomes = await asyncio.gather(
            b.writer.submit([statements.keep("a", "1")]),
            b.writer.submit([statements.keep("b", "1"), BAD], [record("bad")]),
            b.writer.submit([statements.keep("c", "1")]),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [type(None), Unwritten, type(None)]
        assert b.meta() == {"a": "1", "c": "1"}
        assert "bad" not in b.trail.events()


async def test_without_records_nothing_is_committed(tmp_path: Path):
    async with bench(tmp_path) as b:
        b.trail.fails = True
        with pytest.raises(Unwritten) as caught:
            await b.writer.submit([statements.keep("a", "1")], [record()])
        assert caught.value.code is Code.AUDIT_UNAVAILABLE
        assert caught.value.certain
        assert b.meta() == {}


async def test_what_is_owed_is_written_when_it_can_be_and_in_order(tmp_path: Path):
    async with bench(tmp_path) as b:
        b.trail.fails = True
        owed = b.writer.owe([statements.keep("a", "owed")], [record("owed")])
        with pytest.raises(Unwritten):
            await b.writer.submit([statements.keep("a", "no")], [record("no")])
        b.trail.fails = False
        await b.writer.submit([statements.keep("a", "later")], [record("later")])
        await owed
        assert b.trail.events() == ["owed", "later"]
        assert b.meta() == {"a": "later"}


async def test_what_is_owed_is_tried_again_by_itself(tmp_path: Path):
    async with bench(tmp_path) as b:
        b.trail.fails = True
        owed = b.writer.owe([], [record("owed")])
        with pytest.raises(Unwritten):
            await b.writer.submit([], [record("no")])
        b.trail.fails = False
        await asyncio.wait_for(owed, 10)
        assert b.trail.events() == ["owed"]


async def test_an_instance_that_was_taken_over_writes_nothing(tmp_path: Path):
    fenced = asyncio.Event()
    async with bench(tmp_path, on_fenced=fenced.set) as b:
        await b.writer.submit([statements.keep("a", "1")])
        b.write("UPDATE meta SET value = '2' WHERE key = 'instance'")
        for _ in range(2):
            with pytest.raises(Unwritten) as caught:
                await b.writer.submit([statements.keep("a", "2")], [record()])
            assert caught.value.code is Code.AUTHORITY_UNAVAILABLE
        await asyncio.wait_for(fenced.wait(), 5)
        assert b.meta() == {"a": "1"}
        assert b.trail.events() == []


async def test_always_syncs_before_it_commits(tmp_path: Path):
    async with bench(tmp_path, always_sync=True) as b:
        await b.writer.submit([statements.keep("a", "1")], [record()])
        assert b.trail.synced == 1


async def test_a_record_that_can_never_be_written_holds_up_nothing(tmp_path: Path):
    class Strict(MemoryTrail):
        def append(self, records: Sequence[Record]) -> None:
            if any(each.event == "bad" for each in records):
                raise ValueError("a forbidden field")
            super().append(records)

    async with bench(tmp_path, trail=Strict()) as b:
        owed = b.writer.owe([statements.keep("a", "1")], [record("bad")])
        outcomes = await asyncio.gather(
            b.writer.submit([statements.keep("b", "1")], [record("good")]),
            b.writer.submit([statements.keep("c", "1")], [record("bad")]),
            return_exceptions=True,
        )
        await asyncio.wait_for(owed, 10)
        assert [type(outcome) for outcome in outcomes] == [type(None), Unwritten]
        assert b.meta() == {"a": "1", "b": "1"}
        assert b.trail.events() == ["good"]


async def test_after_closing_nothing_is_taken(tmp_path: Path):
    async with bench(tmp_path) as b:
        pass
    with pytest.raises(Unwritten):
        await b.writer.submit([])


async def test_what_has_ended_stays_ended_in_the_database_too(tmp_path: Path):
    async with bench(tmp_path) as b:
        grant = a_grant()
        over = replace(grant, state=GrantState.REVOKED)
        await b.writer.submit(
            [statements.save_grant(over), statements.save_grant(grant), statements.count(grant)]
        )
        with sqlite3.connect(b.path) as db:
            assert db.execute("SELECT state FROM grants").fetchall() == [("revoked",)]
        db.close()
