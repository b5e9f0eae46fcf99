"""The audit trail: records, formatted, chained (``audit.chain``) and appended to a file. Synchronous, for one thread.

What is in the file is what ``append`` returned for: when writing fails, the file is cut back to where it was, the chain
in memory stays with it, and OSError goes to the caller, who refuses the effect. After a loss of power a file may end in
half a line; it is cut off when the file is opened, and the first append says so with a record ``audit.resumed`` of its
own. A file whose last whole line is no link of a chain is not continued.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import stat
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pythonjsonlogger.json import JsonFormatter

from taskgrant.audit.chain import BrokenLine, Link, read, seal
from taskgrant.model.record import Record
from taskgrant.model.time import to_rfc3339

#: Names that a record's fields must not have: they would hold a secret, or arguments in the clear. A guard against
#: mistakes; not applied below the first level, where names may be somebody else's (a schema's properties).
SECRET_NAMES = frozenset(
    {
        "token",
        "access_token",
        "handle",
        "authorization",
        "cookie",
        "password",
        "secret",
        "private_key",
        "arguments",
    }
)
#: Names that the trail itself writes.
OWN_NAMES = frozenset({"time", "event", "seq", "prev", "hash"})

_FORBIDDEN = SECRET_NAMES | OWN_NAMES
_BLOCK = 65_536


class Trail:
    """Appends records to ``path`` (mode 0600, locked against a second writer), or to standard output: ``"-"``.

    ``fsync="always"`` syncs each append; ``"interval"`` leaves that to ``sync``, which the caller's timer calls. Raises
    OSError when the file cannot be opened, is locked, or ends in something that is no record.
    """

    def __init__(self, path: str, fsync: Literal["interval", "always"] = "interval") -> None:
        self._always = fsync == "always"
        self._formatter = _Formatter([], json_serializer=_dumps)
        # One entry for all records: making one looks at the clock, the thread and the process, for nothing.
        self._entry = logging.makeLogRecord({})
        self._link = Link()
        self._dirty = False
        self._uncut = False  # a failed write has left something behind the end of the chain
        self._resumed: dict[str, Any] | None = None
        self._size: int | None = None  # None: not a file, nothing can be cut back
        if path == "-":
            self._fd = os.dup(1)
            return
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if stat.S_ISREG(os.fstat(self._fd).st_mode):
                self._resume(path)
        except BaseException:
            os.close(self._fd)
            raise

    @property
    def link(self) -> Link:
        """The end of the chain."""
        return self._link

    def append(self, records: Sequence[Record]) -> None:
        """Appends all records or none. Raises OSError when that failed, ValueError for a forbidden field."""
        if not records:
            return
        resumed = self._resumed
        if resumed is not None:
            records = (Record("audit.resumed", records[0].at, resumed), *records)
        link, lines = self._link, []
        for record in records:
            line, link = self._line(record, link)
            lines.append(line)
        self._write(b"".join(lines))
        self._link = link
        if resumed is not None:
            self._resumed = None

    def sync(self) -> None:
        """Puts on the disk what was appended since the last time. Raises OSError."""
        if not self._dirty:
            return
        # Cleared first: another thread may append while this one waits, and that has to be synced too.
        self._dirty = False
        if self._size is None:
            return
        try:
            os.fdatasync(self._fd)
        except OSError:
            self._dirty = True
            raise

    def close(self) -> None:
        """Syncs and closes. The trail is of no use afterwards."""
        try:
            self.sync()
        finally:
            os.close(self._fd)

    def _line(self, record: Record, after: Link) -> tuple[bytes, Link]:
        if not _FORBIDDEN.isdisjoint(record.fields):
            raise ValueError(
                f"an audit record has no field {sorted(_FORBIDDEN.intersection(record.fields))[0]!r}"
            )
        message: Any = {
            "time": to_rfc3339(record.at),
            "event": record.event,
            "seq": after.seq + 1,
            "prev": after.hash,
            **record.fields,
        }
        self._entry.msg = message
        text = self._formatter.format(self._entry)
        line, digest = seal(text.encode("ascii"))
        return line, Link(after.seq + 1, digest)

    def _write(self, data: bytes) -> None:
        if self._size is not None:
            if self._uncut:
                os.ftruncate(self._fd, self._size)
                self._uncut = False
            elif os.fstat(self._fd).st_size != self._size:
                raise OSError("the audit file was changed by somebody else")
        try:
            rest = data
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            if self._always and self._size is not None:
                os.fdatasync(self._fd)
        except OSError:
            if self._size is not None:
                self._uncut = True
                with contextlib.suppress(OSError):
                    os.ftruncate(self._fd, self._size)
                    self._uncut = False
            raise
        if self._size is not None:
            self._size += len(data)
        self._dirty = True

    def _resume(self, path: str) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(f"{path}: another process is writing it") from None
        os.fchmod(self._fd, 0o600)
        size = os.fstat(self._fd).st_size
        whole = self._line_end(size)
        if whole:
            start = self._line_end(whole - 1)
            try:
                self._link, _, _ = read(os.pread(self._fd, whole - start, start))
            except BrokenLine as error:
                raise OSError(
                    f"{path}: the last line {error}; move the file away to begin a new trail"
                ) from None
        if whole < size:
            torn = hashlib.sha256()
            for at in range(whole, size, _BLOCK):
                torn.update(os.pread(self._fd, _BLOCK, at))
            os.ftruncate(self._fd, whole)
            self._resumed = {"cut_bytes": size - whole, "cut_sha256": torn.hexdigest()}
        self._size = whole
        if size == 0:
            _sync_directory(path)

    def _line_end(self, end: int) -> int:
        """Where the last line feed before ``end`` ends; 0 when there is none."""
        while end > 0:
            start = max(0, end - _BLOCK)
            found = os.pread(self._fd, end - start, start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
        return 0


class _Formatter(JsonFormatter):
    """Members are the record's, and in its order: nothing of the entry that carries it, which takes twice as long."""

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        log_data.update(message_dict)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise ValueError(f"an audit record holds JSON values only, not {type(value).__name__}")


_encoder = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=_plain)


def _dumps(data: object, **_: Any) -> str:
    """In place of the formatter's encoder, which is made anew each time and guesses at what is no JSON value."""
    return _encoder.encode(data)


def _sync_directory(path: str) -> None:
    """Makes a new file's name outlive a loss of power."""
    directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
