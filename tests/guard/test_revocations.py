import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrant.guard.revocations import Ended, Gap, RevocationState
from taskgrant.model.event import Cursor, Event, EventKind
from taskgrant.model.json import JsonObject
from taskgrant.model.time import Instant

NOTHING: JsonObject = {"revoked": {}}


def _event(
    kind: EventKind, seq: int, body: JsonObject | None = None, at: float = 0.0, epoch: str = "e"
) -> Event:
    return Event(Cursor(epoch, seq), kind, Instant(at), body or {})


def _started(staleness: float = 2.0) -> RevocationState:
    state = RevocationState(staleness)
    state.apply(_event(EventKind.SNAPSHOT, 5, NOTHING), Instant(0))
    return state


def test_nothing_is_known_before_the_first_snapshot() -> None:
    state = RevocationState(2.0)
    assert not state.fresh(Instant(0))
    with pytest.raises(Gap):
        state.apply(_event(EventKind.HEARTBEAT, 5), Instant(0))
    assert not state.fresh(Instant(0))


def test_a_snapshot_and_a_revocation_say_what_has_ended() -> None:
    state = RevocationState(2.0)
    body: JsonObject = {"revoked": {"tasks": ["t1"], "grants": ["g1"], "serials": ["aa"], "jtis": ["j1"]}}
    assert state.apply(_event(EventKind.SNAPSHOT, 5, body), Instant(0)) == Ended(
        frozenset({"t1"}), frozenset({"g1"}), frozenset({"aa"}), frozenset({"j1"}), snapshot=True
    )
    state.apply(
        _event(EventKind.REVOCATION, 6, {"tasks": ["t2"], "grants": ["g2"], "reason": "r"}), Instant(0)
    )
    for credential in (("t1", "", ""), ("", "aa", ""), ("", "", "j1"), ("t2", "", "")):
        assert state.credential(*credential)
    assert state.grant("g1")
    assert state.grant("g2")
    assert not state.credential("t3", "ab", "j2")
    assert not state.grant("g3")


@pytest.mark.parametrize("now, fresh", [(1.9, True), (2.0, False), (100.0, False)])
def test_silence_makes_it_stale(now: float, fresh: bool) -> None:
    assert _started().fresh(Instant(now)) is fresh


def test_any_event_makes_it_fresh_counted_from_when_the_authority_said_it() -> None:
    state = _started()
    state.apply(_event(EventKind.HEARTBEAT, 5, at=3.0), Instant(3.0))
    assert state.fresh(Instant(4.9))
    state.apply(_event(EventKind.TASK, 6, at=4.0), Instant(50.0))  # it lay in a buffer
    assert not state.fresh(Instant(50.0))
    state.apply(_event(EventKind.TASK, 7, at=1000.0), Instant(51.0))  # a clock that is ahead buys nothing
    assert not state.fresh(Instant(53.0))


@pytest.mark.parametrize(
    "event",
    [
        _event(EventKind.REVOCATION, 7),
        _event(EventKind.TASK, 5),
        _event(EventKind.HEARTBEAT, 6),
        _event(EventKind.HEARTBEAT, 4),
        _event(EventKind.REVOCATION, 6, epoch="other"),
        _event(EventKind.SNAPSHOT, 9, {}),
        _event(EventKind.SNAPSHOT, 9, {"revoked": ["t1"]}),
        _event(EventKind.REVOCATION, 6, {"tasks": "t1"}),
        _event(EventKind.REVOCATION, 6, {"tasks": {"t1": 1}}),
        _event(EventKind.REVOCATION, 6, {"tasks": [1]}),
        _event(EventKind.REVOCATION, 6, {"tasks": 1}),
    ],
)
def test_a_gap_or_an_unreadable_event_makes_it_stale_until_a_snapshot(event: Event) -> None:
    state = _started()
    with pytest.raises(Gap):
        state.apply(event, Instant(0))
    assert not state.fresh(Instant(0))
    assert state.cursor is None
    state.apply(_event(EventKind.SNAPSHOT, 9, NOTHING, epoch="other"), Instant(0))
    assert state.fresh(Instant(0))


def test_what_has_ended_stays_known_over_a_gap_and_is_forgotten_when_no_credential_can_live() -> None:
    state = _started()
    state.apply(_event(EventKind.REVOCATION, 6, {"tasks": ["t1"]}), Instant(0))
    state.forget()
    state.apply(_event(EventKind.SNAPSHOT, 7, NOTHING, at=3600), Instant(3600))
    assert state.credential("t1", "", "")
    state.apply(_event(EventKind.REVOCATION, 8, {"tasks": ["t2"]}, at=3601), Instant(3601))
    assert not state.credential("t1", "", "")


@given(st.lists(st.sampled_from(["t1", "t2", "t3"]), max_size=30))
def test_it_knows_exactly_what_it_was_told(tasks: list[str]) -> None:
    state = _started()
    for offset, task in enumerate(tasks, start=6):
        state.apply(_event(EventKind.REVOCATION, offset, {"tasks": [task]}), Instant(0))
    assert {task for task in ("t1", "t2", "t3") if state.credential(task, "", "")} == set(tasks)


@pytest.mark.parametrize(
    "said, until", [(5.0, 5.0), (3600.0, 60.0), (0, 60.0), (True, 60.0), ("2", 60.0), (None, 60.0)]
)
def test_a_guard_never_believes_longer_than_the_authority_waits_for_it(
    said: float | str | None, until: float
) -> None:
    state = RevocationState(60.0)
    state.apply(_event(EventKind.SNAPSHOT, 5, {"revoked": {}, "staleness_seconds": said}), Instant(0))
    assert state.fresh(Instant(until - 0.1))
    assert not state.fresh(Instant(until))
