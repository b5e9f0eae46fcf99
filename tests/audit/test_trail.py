"""The trail on a real file: what was appended is there and chained, whatever fails."""

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from taskgrant.audit.chain import Link, verify
from taskgrant.audit.trail import OWN_NAMES, SECRET_NAMES, Trail
from taskgrant.model.record import Record
from taskgrant.model.time import Instant


def record(event: str = "call.decided", **fields: Any) -> Record:
    return Record(event, Instant(1_700_000_000.25), fields)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def write(path: Path, *records: Record) -> None:
    trail = Trail(str(path))
    trail.append(records)
    trail.close()


def test_a_record_is_one_flat_line(path: Path) -> None:
    write(path, record(code="granted", allow=True, text="a\nb é \ud800", nothing=None, many=("a", 1.5)))
    (line,) = lines(path)
    assert line.pop("hash")
    assert line == {
        "time": "2023-11-14T22:13:20.250000Z",
        "event": "call.decided",
        "seq": 1,
        "prev": "0" * 64,
        "code": "granted",
        "allow": True,
        "text": "a\nb é \ud800",
        "nothing": None,
        "many": ["a", 1.5],
    }
    assert path.read_bytes().count(b"\n") == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_records_are_chained_across_appends_and_restarts(path: Path) -> None:
    trail = Trail(str(path), fsync="always")
    trail.append([record(n=1), record(n=2)])
    trail.append([])
    trail.append([record(n=3)])
    assert trail.link.seq == 3
    trail.close()
    path.chmod(0o644)
    write(path, record(n=4, text="x" * 200_000))
    write(path, record(n=5))
    assert [line["n"] for line in lines(path)] == [1, 2, 3, 4, 5]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with path.open("rb") as file:
        assert verify(file).ok


@pytest.mark.parametrize("torn", [b"{", b"\0" * 70_000, b'{"event":"call.decided","seq":3'])
@pytest.mark.parametrize("whole", [0, 2])
def test_half_a_line_is_cut_off_and_told(path: Path, torn: bytes, whole: int) -> None:
    write(path, *[record()] * whole)
    with path.open("ab") as file:
        file.write(torn)
    write(path, record("after"))
    *_, resumed, after = lines(path)
    assert (resumed["event"], resumed["seq"], resumed["cut_bytes"]) == ("audit.resumed", whole + 1, len(torn))
    assert after["event"] == "after"
    with path.open("rb") as file:
        assert verify(file).records == whole + 2


def test_the_resumption_is_told_once(path: Path) -> None:
    path.write_bytes(b"x")
    trail = Trail(str(path))
    trail.append([record("one")])
    trail.append([record("two")])
    trail.close()
    assert [line["event"] for line in lines(path)] == ["audit.resumed", "one", "two"]


def test_what_is_no_trail_is_not_continued(path: Path) -> None:
    path.write_bytes(b"something else\n")
    with pytest.raises(OSError, match="move the file away"):
        Trail(str(path))
    assert path.read_bytes() == b"something else\n"


def test_one_writer_only(path: Path) -> None:
    first = Trail(str(path))
    with pytest.raises(OSError, match=r"\S"):
        Trail(str(path))
    first.close()
    Trail(str(path)).close()


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Trail(str(tmp_path / "none" / "audit.jsonl"))


class Disk:
    """A disk that takes ``room`` bytes more, a few at a time, then is full; and may fail to cut, or to sync."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room = 1_000_000
        self.cuts = self.syncs = True
        self._write, self._cut, self._sync = os.write, os.ftruncate, os.fdatasync
        monkeypatch.setattr(os, "write", self.write)
        monkeypatch.setattr(os, "ftruncate", self.cut)
        monkeypatch.setattr(os, "fdatasync", self.sync)

    def write(self, fd: int, data: bytes) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, "full")
        written = self._write(fd, data[: min(7, self.room)])
        self.room -= written
        return written

    def cut(self, fd: int, size: int) -> None:
        if not self.cuts:
            raise OSError(errno.EIO, "cannot cut")
        self._cut(fd, size)

    def sync(self, fd: int) -> None:
        if not self.syncs:
            raise OSError(errno.EIO, "cannot sync")
        self._sync(fd)


def test_short_writes_are_completed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Disk(monkeypatch)
    write(path, record(n=1), record(n=2))
    with path.open("rb") as file:
        assert verify(file).records == 2


@pytest.mark.parametrize("cuts", [True, False])
def test_after_a_full_disk_the_chain_goes_on_where_the_file_is(
    path: Path, monkeypatch: pytest.MonkeyPatch, cuts: bool
) -> None:
    disk = Disk(monkeypatch)
    trail = Trail(str(path))
    trail.append([record(n=1)])
    link = trail.link
    disk.room, disk.cuts = 40, cuts
    with pytest.raises(OSError, match="full"):
        trail.append([record(n=2), record(n=3)])
    assert trail.link == link
    disk.room, disk.cuts = 1_000_000, True
    trail.append([record(n=4)])
    trail.close()
    assert [line["n"] for line in lines(path)] == [1, 4]
    with path.open("rb") as file:
        assert verify(file).ok


def test_a_record_that_could_not_be_synced_is_not_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    trail = Trail(str(path), fsync="always")
    disk.syncs = False
    with pytest.raises(OSError, match="cannot sync"):
        trail.append([record()])
    assert (trail.link, path.read_bytes()) == (Link(), b"")
    disk.syncs = True
    trail.close()


def test_sync_passes_errors_on_and_tries_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    trail = Trail(str(path))
    trail.append([record()])
    disk.syncs = False
    with pytest.raises(OSError, match="cannot sync"):
        trail.sync()
    with pytest.raises(OSError, match="cannot sync"):
        trail.sync()
    disk.syncs = True
    trail.sync()
    trail.close()


@pytest.mark.parametrize("content", [b"", b"more than there was" * 100])
def test_a_file_that_somebody_else_changed_is_not_appended_to(path: Path, content: bytes) -> None:
    trail = Trail(str(path))
    trail.append([record()])
    path.write_bytes(content)
    with pytest.raises(OSError, match="somebody else"):
        trail.append([record()])
    assert path.read_bytes() == content
    trail.close()


@pytest.mark.parametrize("name", sorted(SECRET_NAMES | OWN_NAMES))
def test_fields_that_would_hold_a_secret_are_refused(path: Path, name: str) -> None:
    trail = Trail(str(path))
    with pytest.raises(ValueError, match="no field"):
        trail.append([record(), Record("call.decided", Instant(0.0), {name: "x"})])
    trail.append([record(grant={"schemas": [{"properties": {name: {"type": "string"}}}]})])
    trail.close()
    assert len(lines(path)) == 1


@pytest.mark.parametrize("value", [b"x", object(), float("nan"), {1, 2}])
def test_only_json_is_recorded(path: Path, value: Any) -> None:
    trail = Trail(str(path))
    with pytest.raises(ValueError, match=r"JSON"):
        trail.append([record(value=value)])
    trail.close()
    assert path.read_bytes() == b""


def test_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    trail = Trail("-")
    trail.append([record(n=1), record(n=2)])
    trail.sync()
    trail.close()
    out = capfd.readouterr().out
    assert verify(line.encode() + b"\n" for line in out.splitlines()).records == 2


def test_a_pipe_is_written_to_as_it_is(path: Path) -> None:
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    trail = Trail(str(path), fsync="always")
    trail.append([record()])
    trail.close()
    assert verify([os.read(reader, 65_536)]).records == 1
    os.close(reader)


def test_what_is_appended_during_a_sync_is_synced_by_the_next(tmp_path, monkeypatch):
    trail = Trail(str(tmp_path / "trail"))
    synced: list[int] = []

    def slow(fd):
        if not synced:
            trail.append([Record("second", Instant(2.0), {})])
        synced.append(fd)

    monkeypatch.setattr("taskgrant.audit.trail.os.fdatasync", slow)
    trail.append([Record("first", Instant(1.0), {})])
    trail.sync()
    trail.sync()
    trail.sync()
    assert len(synced) == 2
    trail.close()
