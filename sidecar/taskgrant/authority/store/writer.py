"""The one thread that writes: jobs in, group commits out, records before effects.

Each batch is everything that waits: ``BEGIN``, the fence, all statements, one ``Trail.append`` of all records,
``COMMIT``, then one call back into the event loop. The records are with the kernel before the commit, so that nothing
permissive is ever unrecorded; if they cannot be written, the whole batch is rolled back and refused. A batch whose
statements fail is run again job by job, so that one bad job harms no other.

*Owed* jobs are restrictive effects: nobody waits for them, they hold already. One that cannot be written is kept and
goes ahead of every later batch, and is tried again each second, until the disk takes it.
"""

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from taskgrant.authority.store.statements import Statement
from taskgrant.errors import Refused
from taskgrant.model.codes import Code
from taskgrant.model.record import Record

_log = logging.getLogger(__name__)

_LAZY_SECONDS = 0.02
_RETRY_SECONDS = 1.0
_OWED_RECORDS = 10_000  # a disk that stays full must not fill the memory too
_BATCH = 512
# What is wrong with a statement or a record, as against what the disk does.
_FAULTS = (
    ValueError,
    TypeError,
    sqlite3.IntegrityError,
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
    sqlite3.DataError,
)


class Trail(Protocol):
    """Where records go. Both are called off the event loop; both raise when it cannot be done."""

    def append(self, records: Sequence[Record]) -> None: ...
    def sync(self) -> None: ...


class Unwritten(Refused):
    """A job was not written. ``certain``: it surely left no trace. ``faulty``: it never can be, whatever the disk
    does.
    """

    def __init__(self, code: Code, reason: str, *, certain: bool, faulty: bool = False) -> None:
        super().__init__(code, reason)
        self.certain = certain
        self.faulty = faulty


class FencedError(Exception):
    """Another instance has taken this database over."""


@dataclass(slots=True)
class Job:
    statements: tuple[Statement, ...]
    records: tuple[Record, ...]
    waiter: asyncio.Future[None] | None = None
    owed: bool = False
    sync: bool = False
    tried: int = field(default=0)


class Writer:
    """Use from the event loop that it was made in. ``close`` waits for what is queued."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        trail: Trail,
        instance: int,
        *,
        always_sync: bool = False,
        on_written: Callable[[], None] = lambda: None,
        on_fenced: Callable[[], None] = lambda: None,
    ) -> None:
        self._connection = connection
        self._trail = trail
        self._instance = str(instance)
        self._always_sync = always_sync
        self._on_written = on_written
        self._on_fenced = on_fenced
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lazy: list[Job] = []
        self._lazy_timer: asyncio.TimerHandle | None = None
        self._owed: list[Job] = []
        self._synchronous = ""  # the connection's mode, as last set
        self._fenced = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="taskgrant-writer", daemon=True)
        self._thread.start()

    # --- the event loop's side -----------------------------------------------------------------------------------

    def submit(self, statements: Sequence[Statement], records: Sequence[Record] = ()) -> asyncio.Future[None]:
        """Done when committed. Raises ``Unwritten`` (audit_unavailable, or authority_unavailable when fenced)."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._enqueue(Job(tuple(statements), tuple(records), waiter))
        return waiter

    def owe(
        self, statements: Sequence[Statement], records: Sequence[Record] = (), *, sync: bool = False
    ) -> asyncio.Future[None]:
        """For what holds already. Done when committed, however often that takes; cancelled when it never will be.
        ``sync``: on the disk by then, for what has to outlive the machine's next boot.
        """
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._enqueue(Job(tuple(statements), tuple(records), waiter, owed=True, sync=sync))
        return waiter

    def post(self, statements: Sequence[Statement], records: Sequence[Record] = ()) -> None:
        """Like ``owe``, for what can wait for the next batch or 20 ms: it wakes no thread. Order is kept."""
        self._lazy.append(Job(tuple(statements), tuple(records), owed=True))
        if self._lazy_timer is None:
            self._lazy_timer = self._loop.call_later(_LAZY_SECONDS, self._lazy_due)

    async def close(self) -> None:
        """Returns when everything that was handed in has been tried once more and the thread is gone."""
        if not self._closed:
            self._closed = True
            if self._lazy_timer is not None:
                self._lazy_timer.cancel()
            self._flush()
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _enqueue(self, job: Job) -> None:
        if self._closed:
            error = Unwritten(Code.AUTHORITY_UNAVAILABLE, "the authority is shut down", certain=True)
            if job.waiter is not None and not job.owed:
                job.waiter.set_exception(error)
            return
        self._flush()
        self._queue.put(job)

    def _flush(self) -> None:
        for job in self._lazy:
            self._queue.put(job)
        self._lazy.clear()

    def _lazy_due(self) -> None:
        # The timer is left to fire when a flush came before it: making one for each job costs more.
        self._lazy_timer = None
        self._flush()

    # --- the thread's side ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        running = True
        while running:
            batch = self._owed + self._take()
            self._owed = []
            running = None not in batch
            jobs = [job for job in batch if job is not None]
            if jobs:
                self._write(jobs)
        for job in self._owed:
            if job.waiter is not None:
                self._call(job.waiter.cancel)
        self._connection.close()

    def _take(self) -> list[Job | None]:
        try:
            taken = [self._queue.get(timeout=_RETRY_SECONDS if self._owed else None)]
        except queue.Empty:
            return []
        with contextlib.suppress(queue.Empty):
            while len(taken) < _BATCH:
                taken.append(self._queue.get_nowait())
        return taken

    def _write(self, jobs: list[Job]) -> None:
        failure = self._transact(jobs)
        if failure is not None and failure.faulty and len(jobs) > 1:
            results = self._one_by_one(jobs)
        else:
            results = [(job, failure) for job in jobs]
        done: list[tuple[asyncio.Future[None], Unwritten | None]] = []
        for job, error in results:
            if error is not None and job.owed:
                self._keep(job, error)
            elif job.waiter is not None:
                done.append((job.waiter, error))
        if any(error is None for _, error in results):
            self._on_written()
        if done:
            self._call(lambda: _resolve(done))

    def _one_by_one(self, jobs: list[Job]) -> list[tuple[Job, Unwritten | None]]:
        results: list[tuple[Job, Unwritten | None]] = []
        down: Unwritten | None = None
        for job in jobs:
            # Once the disk fails, what comes after fails too: an owed job must not be overtaken and undo newer ones.
            error = down or self._transact([job])
            if error is not None and not error.faulty:
                down = error
            results.append((job, error))
        return results

    def _transact(self, jobs: list[Job]) -> Unwritten | None:
        certain = True
        sync = self._always_sync or any(job.sync for job in jobs)
        try:
            execute = self._connection.execute
            mode = "FULL" if sync else "NORMAL"
            if mode != self._synchronous:
                execute(f"PRAGMA synchronous = {mode}")
                self._synchronous = mode
            execute("BEGIN IMMEDIATE")
            row = execute("SELECT value FROM meta WHERE key = 'instance'").fetchone()
            if row is None or row[0] != self._instance:
                raise FencedError("another instance has taken this database over")
            for job in jobs:
                for sql, values in job.statements:
                    execute(sql, values)
            records = [record for job in jobs for record in job.records]
            if records:
                self._trail.append(records)
                if sync:
                    self._trail.sync()
            certain = False
            execute("COMMIT")
        except FencedError as error:
            self._roll_back()
            if not self._fenced:
                self._fenced = True
                self._call(self._on_fenced)
            return Unwritten(Code.AUTHORITY_UNAVAILABLE, str(error), certain=True)
        except Exception as error:  # whatever the database or the trail raises: nothing of the batch may pass
            rolled_back = self._roll_back()
            reason = f"the authority cannot write its state and records: {error}"
            faulty = certain and isinstance(error, _FAULTS)
            return Unwritten(Code.AUDIT_UNAVAILABLE, reason, certain=certain and rolled_back, faulty=faulty)
        return None

    def _roll_back(self) -> bool:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            return False
        return True

    def _keep(self, job: Job, error: Unwritten) -> None:
        if self._fenced:  # the database is another's: what it says of our tasks is no longer ours to write
            if job.waiter is not None:
                self._call(job.waiter.cancel)
            return
        if error.faulty:
            _log.error("a record or statement can never be written: %s", error.reason)
            if not job.records:
                return
            job.records = ()  # what it restricts has to be stored all the same
        job.tried += 1
        if job.tried > 1 and sum(len(owed.records) for owed in self._owed) >= _OWED_RECORDS:
            job.records = ()
        self._owed.append(job)

    def _call(self, callback: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it whoever waited
            self._loop.call_soon_threadsafe(callback)


def _resolve(done: list[tuple[asyncio.Future[None], Unwritten | None]]) -> None:
    for waiter, error in done:
        if waiter.done():
            continue
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)
