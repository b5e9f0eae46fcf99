r"""The chain of audit records: each line names the one before it, so that none is changed, added, moved or lost unseen.

Grammar (bytes; nothing has to be encoded anew to check it)::

    line  = body[:-1]  ',"hash":"'  hash  '"}'  LF
    body  = one JSON object, UTF-8, no LF, with "seq" (1, 2, 3 …) and "prev" (the hash of the line before)
    hash  = SHA-256 of body, 64 lower-case hex digits; "prev" of the first line is 64 zeros

Any tool can follow: cut the last 75 bytes off a line without its LF, put ``}`` back, hash. What a chain cannot
show is that its end was cut off, or that all of it was written anew: compare ``Verdict.last`` with a hash
that was kept elsewhere.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

GENESIS = "0" * 64

_TAIL = re.compile(rb',"hash":"([0-9a-f]{64})"\}\Z')


@dataclass(frozen=True, slots=True)
class Link:
    """The end of a chain: what the next line has to follow."""

    seq: int = 0
    hash: str = GENESIS


@dataclass(frozen=True, slots=True)
class Verdict:
    """What checking found. ``bad_line`` counts from 1, None when the chain holds; ``last`` is the last good link."""

    records: int
    last: Link
    bad_line: int | None = None
    reason: str = ""

    @property
    def ok(self) -> bool:
        return self.bad_line is None


class BrokenLine(ValueError):
    """A line that is no link of the chain. ``str()`` says why."""


def seal(body: bytes) -> tuple[bytes, str]:
    """A body as a line of the chain, LF included, and its hash."""
    digest = hashlib.sha256(body).hexdigest()
    return b'%b,"hash":"%b"}\n' % (body[:-1], digest.encode()), digest


def read(line: bytes) -> tuple[Link, str, dict[str, Any]]:
    """A line (with or without LF) as its link, the hash that it follows, and the record. Raises ``BrokenLine``."""
    line = line.removesuffix(b"\n")
    tail = _TAIL.search(line)
    if tail is None:
        raise BrokenLine("does not end with a hash")
    digest = tail[1].decode()
    body = line[: tail.start()] + b"}"
    if not hmac.compare_digest(hashlib.sha256(body).hexdigest(), digest):
        raise BrokenLine("was changed: its hash is not that of its content")
    try:
        record = json.loads(body, object_pairs_hook=_unique)
    except ValueError as error:
        raise BrokenLine(f"is no JSON object: {error}") from None
    seq, prev = (record.get("seq"), record.get("prev")) if isinstance(record, dict) else (None, None)
    if type(seq) is not int or not isinstance(prev, str):
        raise BrokenLine("has no seq and prev")
    return Link(seq, digest), prev, record


def verify(lines: Iterable[bytes], after: Link | None = None) -> Verdict:
    """Checks a chain from its first line, or from the line after a link that is trusted. Names the first bad line."""
    last = after or Link()
    records = 0
    for number, line in enumerate(lines, start=1):
        try:
            link, prev, _ = read(line)
            if not line.endswith(b"\n"):
                raise BrokenLine("is torn: it does not end with a line feed")
            if link.seq != last.seq + 1:
                raise BrokenLine(f"is record {link.seq}, where {last.seq + 1} was expected")
            if not hmac.compare_digest(prev, last.hash):
                raise BrokenLine("does not follow the line before it")
        except BrokenLine as error:
            return Verdict(records, last, number, str(error))
        last = link
        records += 1
    return Verdict(records, last)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ValueError("a member is there twice")
    return record
