"""The event stream: snapshot first, nothing missed, heartbeats, and slow subscribers cut."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, cast

import pytest

from taskgrant.authority.events import EventLog
from taskgrant.model.event import Cursor, Event, EventKind
from taskgrant.model.task import Outcome
from tests.authority.support import MAIL, ORCHESTRATOR, ManualClock, Setting, new_csr, opened, spec

Stream = AsyncGenerator[Event, None]


def a_log(clock: ManualClock, buffer: int = 4, queue: int = 3) -> EventLog:
    return EventLog("e.1", clock, heartbeat=0.5, staleness=2.0, buffer=buffer, queue=queue)


def subscribe(log: EventLog, after: Cursor | None = None, name: str | None = None) -> Stream:
    return log.subscribe(after, name, lambda: {"n": log.cursor.seq})


async def take(stream: Stream, number: int) -> list[Event]:
    return [await anext(stream) for _ in range(number)]


async def test_a_snapshot_then_changes_in_order():
    log = a_log(ManualClock())
    log.publish(EventKind.TASK, {"id": "a"})
    stream = subscribe(log)
    (snapshot,) = await take(stream, 1)
    assert (snapshot.kind, snapshot.cursor, snapshot.body) == (EventKind.SNAPSHOT, Cursor("e.1", 1), {"n": 1})
    log.publish(EventKind.TASK, {"id": "b"})
    log.publish(EventKind.TASK, {"id": "c"})
    assert [event.body["id"] for event in await take(stream, 2)] == ["b", "c"]
    await stream.aclose()


async def test_resuming_misses_nothing():
    log = a_log(ManualClock())
    cursors = [log.publish(EventKind.TASK, {"id": number}) for number in range(4)]
    stream = subscribe(log, cursors[1])
    assert [event.body["id"] for event in await take(stream, 2)] == [2, 3]
    beat = await anext(stream)
    assert (beat.kind, beat.cursor) == (EventKind.HEARTBEAT, cursors[3])
    await stream.aclose()


@pytest.mark.parametrize("after", [Cursor("other", 5), Cursor("e.1", 0), Cursor("e.1", 99)])
async def test_a_gap_is_a_snapshot(after: Cursor):
    log = a_log(ManualClock())
    for number in range(6):
        log.publish(EventKind.TASK, {"id": number})
    stream = subscribe(log, after)
    assert (await anext(stream)).kind is EventKind.SNAPSHOT
    await stream.aclose()


async def test_heartbeats_while_somebody_listens():
    clock = ManualClock()
    log = a_log(clock)
    stream = subscribe(log)
    await anext(stream)
    clock.advance(1.0)
    assert [event.kind for event in await take(stream, 2)] == [EventKind.HEARTBEAT] * 2
    await stream.aclose()
    seen = log.cursor
    clock.advance(10)
    assert log.cursor == seen


async def test_a_slow_subscriber_is_cut_and_resumes():
    log = a_log(ManualClock(), buffer=100)
    slow = subscribe(log)
    first = await anext(slow)
    for number in range(5):
        log.publish(EventKind.TASK, {"id": number})
    with pytest.raises(StopAsyncIteration):
        await anext(slow)
    again = subscribe(log, first.cursor)
    assert [event.body["id"] for event in await take(again, 5)] == [0, 1, 2, 3, 4]
    await again.aclose()


async def test_a_second_of_the_same_name_replaces_the_first():
    log = a_log(ManualClock())
    first, second = subscribe(log, name="guard"), subscribe(log, name="guard")
    await anext(first)
    await anext(second)
    with pytest.raises(StopAsyncIteration):
        await anext(first)
    await second.aclose()


async def test_acknowledgements_that_say_nothing():
    clock = ManualClock()
    log = a_log(clock)
    stream = subscribe(log, name="guard")
    await anext(stream)
    cursor = log.publish(EventKind.REVOCATION, {})
    log.acknowledge("stranger", cursor)
    log.acknowledge("guard", Cursor("other", 99))
    log.acknowledge("guard", Cursor("e.1", 99))
    waiting = asyncio.ensure_future(log.acknowledged(cursor))
    await asyncio.sleep(0)
    assert not waiting.done()
    log.acknowledge("guard", cursor)
    assert await waiting == ()
    assert await log.acknowledged(cursor) == ()
    await stream.aclose()


async def test_closing_ends_every_stream():
    log = a_log(ManualClock())
    stream = subscribe(log)
    await anext(stream)
    log.close()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_what_the_authority_tells(tmp_path: Path):
    async with opened(tmp_path) as s:
        stream = cast("Stream", s.authority.events(None))
        await anext(stream)
        started = await s.authority.start(spec(MAIL), ORCHESTRATOR, None)
        issued = await s.authority.issue(started.task.id, "mail", new_csr())
        await s.authority.end(started.task.id, Outcome.COMPLETE, ORCHESTRATOR)
        events = await take(stream, 6)
        assert [event.kind for event in events] == [
            EventKind.TASK,
            EventKind.GRANT,
            EventKind.CREDENTIAL,
            EventKind.REVOCATION,
            EventKind.TASK,
            EventKind.GRANT,
        ]
        assert events[3].body["serials"] == [issued.serial]
        text = str(events)
        assert "a@example.org" not in text
        assert str(started.handle) not in text
        assert issued.token not in text
        await stream.aclose()
        assert await _snapshot(s) == {
            "tasks": [], "grants": [], "freezes": [], "heartbeat_seconds": 0.5, "staleness_seconds": 2.0,
            "revoked": {"serials": [issued.serial], "jtis": [issued.jti]},
        }  # fmt: skip


async def _snapshot(s: Setting) -> Any:
    stream = cast("Stream", s.authority.events(None))
    event = await anext(stream)
    await stream.aclose()
    return event.body


async def test_another_instance_numbers_anew(tmp_path: Path):
    async with opened(tmp_path) as s:
        stream = cast("Stream", s.authority.events(None))
        before = (await anext(stream)).cursor
        await stream.aclose()
    async with opened(tmp_path) as s:
        stream = cast("Stream", s.authority.events(before))
        after = await anext(stream)
        assert after.kind is EventKind.SNAPSHOT
        assert after.cursor.epoch != before.epoch
        await stream.aclose()
