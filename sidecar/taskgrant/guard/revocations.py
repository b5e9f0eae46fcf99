"""What has ended, as the authority's events tell it: pure. When in doubt it is stale, and a guard that is
stale refuses.

Doubt is: nothing heard yet, nothing heard for the staleness bound, an event missing between two, another
epoch without a snapshot. What a guard hears counts from when the *authority* said it, so that an event that
lay in a buffer does not make an old truth fresh; the clocks of the two machines must therefore agree to well
within the bound.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from taskgrant.model.event import Cursor, Event, EventKind
from taskgrant.model.json import Json
from taskgrant.model.time import Instant

# Longer than any credential lives, backdating and leeway included: what ended before cannot be shown any more.
_KEEP_SECONDS = 3600.0


class Gap(Exception):
    """An event is missing, or is not what this stream may hold: take a snapshot."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What one event ends. ``serials`` and ``jtis`` are the credentials that end with the named tasks and
    grants.
    """

    tasks: frozenset[str] = frozenset()
    grants: frozenset[str] = frozenset()
    serials: frozenset[str] = frozenset()
    jtis: frozenset[str] = frozenset()
    snapshot: bool = (
        False  # all that has ended, and not why: a credential in it stands for its task and grants
    )


@dataclass(slots=True)
class RevocationState:
    """``staleness``: seconds without a word of the authority after which nothing is believed.

    A snapshot shortens it to the authority's own bound: that is how long the authority waits for a guard that does not
    acknowledge, so one that believed longer would let in what has ended.
    """

    staleness: float
    cursor: Cursor | None = None
    _heard_at: float | None = None
    _tasks: dict[str, float] = field(default_factory=dict)
    _grants: dict[str, float] = field(default_factory=dict)
    _serials: dict[str, float] = field(default_factory=dict)
    _jtis: dict[str, float] = field(default_factory=dict)

    def apply(self, event: Event, now: Instant) -> Ended:
        """Takes one event in, and answers what it ends.

        Raises Gap when an event is missing or unreadable: from then on the state is stale until a snapshot
        comes.
        """
        try:
            ended = self._read(event)
        except Gap:
            self.forget()
            raise
        heard = min(float(event.at), float(now))
        for known, named in (
            (self._tasks, ended.tasks),
            (self._grants, ended.grants),
            (self._serials, ended.serials),
            (self._jtis, ended.jtis),
        ):
            known.update(dict.fromkeys(named, heard))
            _prune(known, now - _KEEP_SECONDS)
        self.cursor = event.cursor
        self._heard_at = heard
        return ended

    def forget(self) -> None:
        """Stale until the next snapshot. What has ended stays known."""
        self.cursor = None
        self._heard_at = None

    def fresh(self, now: Instant) -> bool:
        return self._heard_at is not None and 0 <= now - self._heard_at < self.staleness

    def credential(self, task: str, serial: str, jti: str) -> bool:
        """Whether a credential has ended."""
        return task in self._tasks or serial in self._serials or jti in self._jtis

    def grant(self, grant: str) -> bool:
        """Whether a grant has ended."""
        return grant in self._grants

    def _read(self, event: Event) -> Ended:
        if event.kind is EventKind.SNAPSHOT:
            bound = event.body.get("staleness_seconds")
            if isinstance(bound, int | float) and not isinstance(bound, bool) and bound > 0:
                self.staleness = min(self.staleness, float(bound))
            revoked = event.body.get("revoked")
            if not isinstance(revoked, Mapping):
                raise Gap("a snapshot does not say what is revoked")
            return replace(_ended(revoked), snapshot=True)
        last, seq = self.cursor, event.cursor.seq
        if last is None or event.cursor.epoch != last.epoch:
            raise Gap("events without a snapshot")
        if seq != last.seq + (event.kind is not EventKind.HEARTBEAT):
            raise Gap(f"event {seq} after event {last.seq}")
        return _ended(event.body) if event.kind is EventKind.REVOCATION else Ended()


def _ended(body: Mapping[str, Json]) -> Ended:
    tasks, grants, serials, jtis = (
        _identifiers(body.get(name, ())) for name in ("tasks", "grants", "serials", "jtis")
    )
    return Ended(tasks, grants, serials, jtis)


def _identifiers(value: "Json | tuple[()]") -> frozenset[str]:
    if isinstance(value, str) or not isinstance(value, Iterable) or isinstance(value, Mapping):
        raise Gap("an event does not list what is revoked")
    identifiers = frozenset(value)
    if not all(isinstance(each, str) for each in identifiers):
        raise Gap("an event lists something that is no identifier")
    return identifiers  # type: ignore[return-value] # just checked


def _prune(known: dict[str, float], before: float) -> None:
    """Entries stand in the order in which they were heard."""
    while known and known[first := next(iter(known))] < before:
        del known[first]
