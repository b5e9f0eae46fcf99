"""Opening the store: one holder at a time, private files, the epoch, and an end to what an earlier epoch left.

An *epoch* is a boot of the machine together with this database: no task survives a reboot, a lost volume or a copy of
the database. An *instance* is one opening of it: a counter that every batch checks, so that a process which was taken
for dead, and comes back, writes nothing. Tasks of the same epoch live on: their process was killed and started again.
Uses that it had reserved stay used, since nobody knows what came of them.
"""

import asyncio
import fcntl
import os
import secrets
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from taskgrant.authority import effects as fx
from taskgrant.authority import lifecycle
from taskgrant.authority.clock import AlarmClock
from taskgrant.authority.config import AuthorityConfig
from taskgrant.authority.store import repository, schema, statements
from taskgrant.authority.store.statements import Credential, Statement
from taskgrant.authority.store.syncing import Syncer
from taskgrant.authority.store.writer import Trail, Writer
from taskgrant.errors import ConfigurationError
from taskgrant.model.event import Scope
from taskgrant.model.ids import CallId, GrantId, TaskId
from taskgrant.model.record import Record
from taskgrant.model.task import TaskState
from taskgrant.model.time import Instant

T = TypeVar("T")

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the store held when it was opened, as it lives on."""

    lives: tuple[lifecycle.TaskLife, ...]
    freezes: tuple[Scope, ...]
    credentials: tuple[Credential, ...]
    remembered: tuple[tuple[str, str, bytes, TaskId, list[GrantId], Instant], ...]


class Store:
    """An open store. Writing goes through ``writer``; ``read`` runs a query of ``repository`` beside the loop."""

    def __init__(
        self, path: Path, lock: int, reader: sqlite3.Connection, writer: Writer, syncer: Syncer, epoch: str,
        instance: int, loaded: Loaded,
    ) -> None:  # fmt: skip
        self.path = path
        self.writer = writer
        self.epoch = epoch
        self.instance = instance
        self.loaded = loaded
        self._lock = lock
        self._reader = reader
        self._reading = threading.Lock()
        self._syncer = syncer

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        def run() -> T:
            with self._reading:
                return query(self._reader)

        return await asyncio.to_thread(run)

    async def close(self) -> None:
        await self.writer.close()
        await asyncio.to_thread(self._syncer.close)
        self._reader.close()
        os.close(self._lock)


def open_store(
    config: AuthorityConfig,
    trail: Trail,
    clock: AlarmClock,
    *,
    boot_id: str | None = None,
    on_fenced: Callable[[], None] = lambda: None,
    on_failure: Callable[[Exception], None] = lambda error: None,
) -> Store:
    """Opens or makes the store, in the running event loop; blocks for some milliseconds.

    Raises ``ConfigurationError`` when another process holds it, or it cannot be used.
    """
    directory = config.state_dir
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        lock = _hold(directory / "authority.lock")
    except OSError as error:
        raise ConfigurationError([f"state_dir {directory}: {error.strerror or error}"]) from error
    path = directory / "authority.db"
    try:
        path.touch(mode=0o600, exist_ok=True)
        path.chmod(0o600)
        connection = schema.connect(path, config.fsync)
        schema.prepare(connection)
        boot = boot_id or _BOOT_ID.read_text().strip()
        epoch, instance, loaded = _take_over(connection, trail, clock, config, boot)
        reader, other = schema.connect(path, config.fsync), schema.connect(path, config.fsync)
    except (OSError, sqlite3.Error, ValueError) as error:
        os.close(lock)
        raise ConfigurationError([f"state_dir {directory}: the database cannot be used: {error}"]) from error
    except BaseException:
        os.close(lock)
        raise
    syncer = Syncer(other, trail.sync, on_failure)
    writer = Writer(
        connection, trail, instance,
        always_sync=config.fsync == "always", on_written=syncer.wake, on_fenced=on_fenced,
    )  # fmt: skip
    return Store(path, lock, reader, writer, syncer, epoch, instance, loaded)


def _hold(path: Path) -> int:
    """An exclusive lock for as long as the process lives. A file of its own: closing any descriptor of the database
    itself would drop SQLite's locks."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        advice = "stop that one, or give this one a directory of its own"
        raise ConfigurationError([f"state_dir {path.parent}: process {holder} holds it; {advice}"]) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _take_over(
    connection: sqlite3.Connection, trail: Trail, clock: AlarmClock, config: AuthorityConfig, boot: str
) -> tuple[str, int, Loaded]:
    store_id = repository.meta(connection, "store") or secrets.token_hex(8)
    epoch = f"{boot}/{store_id}"
    if repository.meta(connection, "epoch") == epoch:
        clock.hold(float(repository.meta(connection, "clock_offset") or "-inf"))
    now = clock.now()
    instance = int(repository.meta(connection, "instance") or 0) + 1
    writes: list[Statement] = [
        statements.keep("store", store_id),
        statements.keep("epoch", epoch),
        statements.keep("instance", str(instance)),
        statements.keep("clock_offset", repr(clock.offset)),
    ]
    records = [Record("authority.opened", now, {"epoch": epoch, "instance": instance})]
    for call, grant in repository.open_uses(connection):
        fields = {"call": call, "grant": grant, "outcome": "outcome_unknown"}
        records.append(
            Record("use.settled", now, {**fields, "reason": "the process ended before it was settled"})
        )
        writes.append(statements.close_use(CallId(call)))
    writes += statements.prune(
        Instant(now - config.retention), Instant(now - 300), Instant(now - config.idempotency_age)
    )
    lives = []
    for task, begun_in in repository.tasks_with_state(connection, TaskState.ACTIVE):
        grants = {grant.id: grant for grant in repository.grants_of(connection, task.id)}
        used = [grant.last_used_at for grant in grants.values() if grant.last_used_at is not None]
        life = lifecycle.TaskLife(task, grants, max([task.created_at, *used]))
        event: fx.Event = fx.Ticked()
        if begun_in != epoch:
            event = fx.Revoked("taskgrant", "the machine was restarted, or the store moved, since it began")
        life, effects = lifecycle.apply(life, event, now)
        for effect in effects:
            match effect:
                case fx.Persist():
                    writes += [statements.save_task(effect.task, epoch)] if effect.task else []
                    writes += [statements.save_grant(each) for each in effect.grants]
                case fx.Recorded():
                    records.append(effect.record)
        if life.task.live:
            lives.append(life)
    living = {life.task.id for life in lives}
    kept = []
    for credential in repository.credentials(connection, now):
        if credential.task not in living and credential.revoked_at is None:
            credential = replace(credential, revoked_at=now)
            writes.append(statements.revoke_credential(credential.serial, now))
        kept.append(credential)
    connection.execute("BEGIN IMMEDIATE")
    for sql, values in writes:
        connection.execute(sql, values)
    trail.append(records)
    connection.execute("COMMIT")
    remembered = repository.remembered(connection, config.idempotency_kept)
    return (
        epoch,
        instance,
        Loaded(tuple(lives), tuple(repository.freezes(connection)), tuple(kept), tuple(remembered)),
    )
