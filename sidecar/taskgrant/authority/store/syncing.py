"""The thread that moves what the kernel holds to the disk: at most once a second, and only when something was
written.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Callable

_EVERY_SECONDS = 1.0


class Syncer:
    """``wake`` may be called from any thread. A failing disk is reported to ``on_failure`` and tried again."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        sync_trail: Callable[[], None],
        on_failure: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        self._connection = connection
        self._sync_trail = sync_trail
        self._on_failure = on_failure
        self._dirty = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="taskgrant-sync", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        if not self._dirty.is_set():
            self._dirty.set()

    def close(self) -> None:
        """Returns when everything is on the disk, or cannot be brought there."""
        self._stop.set()
        self._dirty.set()
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._dirty.wait()
            self._dirty.clear()
            self._stop.wait(_EVERY_SECONDS)
            self._sync()
        self._sync()  # what was written since

    def _sync(self) -> None:
        try:
            self._sync_trail()
            # A checkpoint syncs the log before it copies from it; PASSIVE never makes the writer wait.
            with contextlib.closing(self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")) as cursor:
                cursor.fetchall()
        except Exception as error:  # the disk's or the trail's: the next write tries again
            self._on_failure(error)
            self._dirty.set()
