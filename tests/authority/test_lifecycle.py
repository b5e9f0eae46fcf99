"""The life of a task: the transitions one by one, and what never happens whatever the order."""

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from taskgrant.authority import effects as fx
from taskgrant.authority import lifecycle
from taskgrant.authority.lifecycle import TaskLife
from taskgrant.errors import Refused
from taskgrant.model.codes import Code
from taskgrant.model.grant import Grant, GrantState
from taskgrant.model.ids import GrantId, TaskId
from taskgrant.model.task import Outcome, Task, TaskState
from taskgrant.model.time import Instant

T0 = Instant(1000.0)
G = GrantId("grant-a")


def a_task(**changes) -> Task:
    task = Task(
        id=TaskId("task-a"), agent="spiffe://example.org/agent/a", purpose="p", state=TaskState.ACTIVE, created_at=T0,
        deadline=Instant(T0 + 100), created_by="uid:1", handle_digest=b"d",
    )  # fmt: skip
    return replace(task, **changes)


def a_grant(name: str = "grant-a", **changes) -> Grant:
    grant = Grant(
        id=GrantId(name), task=TaskId("task-a"), server="mail", tools=("send",), schemas=({"type": "object"},),
        state=GrantState.ACTIVE, created_at=T0, expires_at=Instant(T0 + 50), requested_by="uid:1", activated_at=T0,
    )  # fmt: skip
    return replace(grant, **changes)


def begun(*grants: Grant, **changes) -> TaskLife:
    return lifecycle.start(a_task(**changes), grants)[0]


def refused(life: TaskLife, event: fx.Event, at: float) -> Code:
    with pytest.raises(Refused) as caught:
        lifecycle.apply(life, event, Instant(at))
    return Code(caught.value.code)


def test_a_grant_is_cut_to_its_task():
    life = begun(a_grant(expires_at=Instant(T0 + 1000)))
    assert life.grants[G].expires_at == T0 + 100


def test_the_last_use_exhausts_and_a_refund_revives():
    life = begun(a_grant(max_uses=1))
    life, effects = lifecycle.apply(life, fx.Reserved(G), Instant(T0 + 1))
    assert life.grants[G].state is GrantState.EXHAUSTED
    assert any(isinstance(effect, fx.Publish) for effect in effects)
    assert refused(life, fx.Reserved(G), T0 + 2) is Code.USES_EXHAUSTED
    refunded, _ = lifecycle.apply(life, fx.Settled(G, sent=False), Instant(T0 + 2))
    assert (refunded.grants[G].state, refunded.grants[G].used) == (GrantState.ACTIVE, 0)
    settled, _ = lifecycle.apply(life, fx.Settled(G, sent=True), Instant(T0 + 2))
    assert (settled.grants[G].state, settled.grants[G].used) == (GrantState.EXHAUSTED, 1)


def test_a_refund_after_expiry_revives_nothing():
    life, _ = lifecycle.apply(begun(a_grant(max_uses=1)), fx.Reserved(G), Instant(T0 + 1))
    life, _ = lifecycle.apply(life, fx.Settled(G, sent=False), Instant(T0 + 51))
    assert life.grants[G].state is GrantState.EXHAUSTED


def test_a_retry_under_the_same_identity_takes_no_use():
    life, _ = lifecycle.apply(begun(a_grant(max_uses=1)), fx.Reserved(G), Instant(T0 + 1))
    life, _ = lifecycle.apply(life, fx.Settled(G, sent=True), Instant(T0 + 1))
    life, _ = lifecycle.apply(life, fx.Reserved(G, counted=False), Instant(T0 + 2))
    assert (life.grants[G].used, life.grants[G].in_flight) == (1, 1)
    life, _ = lifecycle.apply(life, fx.Settled(G, sent=False, counted=False), Instant(T0 + 3))
    assert (life.grants[G].used, life.grants[G].in_flight) == (1, 0)


def test_waiting_for_approval_takes_nothing_from_a_grants_life():
    life = begun(a_grant(state=GrantState.PENDING, activated_at=None, expires_at=Instant(T0 + 20)))
    assert refused(life, fx.Reserved(G), T0 + 1) is Code.PENDING_APPROVAL
    life, _ = lifecycle.apply(life, fx.Approved(G, "uid:2"), Instant(T0 + 15))
    assert life.grants[G].expires_at == T0 + 35


def test_nobody_approves_in_time():
    life = begun(a_grant(state=GrantState.PENDING, expires_at=Instant(T0 + 20)))
    assert refused(life, fx.Approved(G, "uid:2"), T0 + 20) is Code.GRANT_EXPIRED


def test_rejecting():
    life = begun(a_grant(state=GrantState.PENDING))
    life, effects = lifecycle.apply(life, fx.Rejected(G, "uid:2", "no"), Instant(T0 + 1))
    assert life.grants[G].state is GrantState.REJECTED
    assert refused(life, fx.Approved(G, "uid:2"), T0 + 2) is Code.CONFLICT
    assert any(isinstance(effect, fx.Sever) for effect in effects)


@pytest.mark.parametrize(
    "event, state",
    [
        (fx.Finished(Outcome.COMPLETE, "uid:1"), TaskState.COMPLETED),
        (fx.Finished(Outcome.CANCEL, "uid:1"), TaskState.CANCELLED),
        (fx.Revoked("uid:0", "no more"), TaskState.REVOKED),
    ],
)
def test_a_task_ends_with_all_its_grants(event: fx.Event, state: TaskState):
    life, effects = lifecycle.apply(begun(a_grant(), a_grant("grant-b")), event, Instant(T0 + 1))
    assert life.task.state is state
    assert not any(grant.state.live for grant in life.grants.values())
    (sever,) = [effect for effect in effects if isinstance(effect, fx.Sever)]
    assert sever.whole
    assert sever.grants == {G, GrantId("grant-b")}
    assert refused(life, event, T0 + 2) is Code.TASK_ENDED
    assert refused(life, fx.Requested((a_grant("grant-c"),)), T0 + 2) is Code.TASK_ENDED


def test_one_grant_is_revoked_alone():
    life, effects = lifecycle.apply(
        begun(a_grant(), a_grant("grant-b")), fx.Revoked("uid:0", "r", frozenset({G})), Instant(T0 + 1)
    )
    assert life.task.live
    assert life.grants[GrantId("grant-b")].state.live
    assert [e.grants for e in effects if isinstance(e, fx.Sever)] == [frozenset({G})]
    assert refused(life, fx.Revoked("uid:0", "r", frozenset({G})), T0 + 2) is Code.CONFLICT
    assert refused(life, fx.Revoked("uid:0", "r", frozenset({GrantId("x")})), T0 + 2) is Code.NOT_FOUND


@pytest.mark.parametrize(
    "grant, task, due",
    [
        ({}, {}, 50),
        ({"idle_timeout": 10}, {}, 10),
        ({"idle_timeout": 10, "in_flight": 1}, {}, 50),
        ({"idle_timeout": 10, "last_used_at": Instant(T0 + 7)}, {}, 17),
        ({}, {"idle_timeout": 20}, 20),
        ({"in_flight": 1}, {"idle_timeout": 20}, 50),
        ({"state": GrantState.PENDING}, {"idle_timeout": 20}, 50),
        ({"state": GrantState.REVOKED}, {}, 100),
    ],
)
def test_what_time_alone_does(grant: dict, task: dict, due: float):
    life = begun(a_grant(**grant), **task)
    assert life.due() == T0 + due
    before = lifecycle.at(life, Instant(T0 + due - 0.001))
    assert before is life
    after, effects = lifecycle.apply(life, fx.Ticked(), Instant(T0 + due))
    assert effects
    assert not after.task.live or after.grants[G].state is GrantState.EXPIRED
    assert lifecycle.at(life, Instant(T0 + due)) == after


def test_what_is_due_cannot_be_used_though_nobody_ticked():
    assert refused(begun(a_grant()), fx.Reserved(G), T0 + 50) is Code.GRANT_EXPIRED
    assert refused(begun(a_grant(), idle_timeout=5), fx.Reserved(G), T0 + 6) is Code.TASK_ENDED
    assert refused(begun(a_grant()), fx.Reserved(GrantId("other")), T0) is Code.NO_GRANT


def test_a_new_handle():
    life, effects = lifecycle.apply(begun(), fx.Rotated(b"new", "uid:1"), Instant(T0 + 1))
    assert life.task.handle_digest == b"new"
    assert any(isinstance(effect, fx.Persist) for effect in effects)


ORDER = ["grant-a", "grant-b", "grant-c"]


class Lives(RuleBasedStateMachine):
    """Any events in any order; what is refused changes nothing, and the promises hold after each."""

    @initialize(
        uses=st.lists(st.one_of(st.none(), st.integers(1, 2)), min_size=3, max_size=3),
        idle=st.one_of(st.none(), st.integers(1, 30)),
        pending=st.lists(st.booleans(), min_size=3, max_size=3),
    )
    def begin(self, uses, idle, pending):
        self.now = T0
        grants = [
            a_grant(
                name,
                max_uses=uses[i],
                idle_timeout=idle,
                state=GrantState.PENDING if pending[i] else GrantState.ACTIVE,
                expires_at=Instant(T0 + 40 * (i + 1)),
            )
            for i, name in enumerate(ORDER)
        ]
        self.life = begun(*grants, idle_timeout=idle)
        self.over: dict[str, GrantState] = {}
        self.open: list[fx.Reserved] = []

    def _apply(self, event: fx.Event) -> bool:
        try:
            self.life, _ = lifecycle.apply(self.life, event, self.now)
        except Refused:
            return False
        return True

    @rule(grant=st.sampled_from(ORDER), counted=st.booleans())
    def reserve(self, grant, counted):
        event = fx.Reserved(GrantId(grant), counted)
        if self._apply(event):
            self.open.append(event)

    @rule(sent=st.booleans())
    def settle(self, sent):
        if self.open:
            use = self.open.pop()
            assert self._apply(fx.Settled(use.grant, sent, use.counted))

    @rule(grant=st.sampled_from(ORDER))
    def approve(self, grant):
        self._apply(fx.Approved(GrantId(grant), "uid:2"))

    @rule(grant=st.sampled_from(ORDER))
    def reject(self, grant):
        self._apply(fx.Rejected(GrantId(grant), "uid:2"))

    @rule(grant=st.sampled_from(ORDER))
    def revoke(self, grant):
        self._apply(fx.Revoked("uid:0", "r", frozenset({GrantId(grant)})))

    @rule(how=st.sampled_from([None, Outcome.COMPLETE, Outcome.CANCEL]), really=st.integers(0, 9))
    def end(self, how, really):
        if really == 0:
            self._apply(fx.Revoked("uid:0", "r") if how is None else fx.Finished(how, "uid:1"))

    @rule(seconds=st.integers(0, 30), tick=st.booleans())
    def wait(self, seconds, tick):
        self.now = Instant(self.now + seconds)
        if tick:
            assert self._apply(fx.Ticked())
            assert not self.life.task.live or self.life.due() > self.now

    @invariant()
    def promises(self):
        if not hasattr(self, "life"):
            return
        for grant in self.life.grants.values():
            assert grant.used >= 0
            assert grant.max_uses is None or grant.used <= grant.max_uses
            assert grant.in_flight == sum(1 for use in self.open if use.grant == grant.id)
            assert grant.expires_at <= self.life.task.deadline
            assert self.life.task.live or not (grant.state.live or grant.state is GrantState.PENDING)
            assert (
                self.over.setdefault(grant.id, grant.state) is grant.state if grant.id in self.over else True
            )
            if grant.state in (GrantState.EXPIRED, GrantState.REVOKED, GrantState.REJECTED):
                self.over[grant.id] = grant.state
        if not self.life.task.live:
            assert self.over.setdefault("task", GrantState.REVOKED)
        else:
            assert "task" not in self.over


Lives.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLives = Lives.TestCase
