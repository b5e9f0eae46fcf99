"""Which repetition of a call continues its use, and which is a call like any other."""

import json
from dataclasses import replace
from typing import Any

import pytest

from taskgrant.model.call import Call, Kind
from taskgrant.model.grant import Grant, GrantState
from taskgrant.model.ids import CallId, GrantId, TaskId, new_call_id
from taskgrant.model.time import Instant
from taskgrant.proxy.rounds import Rounds

TASK, OTHER_TASK = TaskId("task-1"), TaskId("task-2")
GRANT = GrantId("grant-1")
ASKABLE: dict[str, Any] = {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {}}}


def call(**members: Any) -> Call:
    first = Call(
        new_call_id(),
        "mcp",
        "shop",
        "tools/call",
        Kind.TOOL,
        "paint",
        {"what": "door"},
        ASKABLE,
        {},
        1,
        "2026-07-28",
    )
    return replace(first, **members)


def again(one: Call, state: str, **members: Any) -> Call:
    return replace(one, id=new_call_id(), params={"requestState": state}, **members)


def grant(**members: Any) -> Grant:
    values = {"state": GrantState.EXHAUSTED, "max_uses": 1, "used": 1, **members}
    return Grant(
        GRANT,
        TASK,
        "shop",
        ("paint",),
        ({},),
        created_at=Instant(0),
        expires_at=Instant(9),
        requested_by="x",
        **values,
    )


def asks(state: object, rpc_id: object = 1, kind: str = "input_required") -> str:
    return json.dumps({"jsonrpc": "2.0", "id": rpc_id, "result": {"resultType": kind, "requestState": state}})


@pytest.fixture
def rounds():
    return Rounds()


@pytest.fixture
def asked(rounds):
    """A call whose first round was answered with the state "s"."""
    one = call()
    assert rounds.begin(TASK, one, GRANT) == one.id
    rounds.heard(one, asks("s"))
    rounds.end(one.id, sent=True)
    return one


def test_the_repetition_has_the_identity_of_the_first_round_and_finds_its_use(rounds, asked):
    second = again(asked, "s")
    (found,) = rounds.as_continued(TASK, second, (grant(),))
    assert (found.state, found.used) == (GrantState.ACTIVE, 0)
    assert rounds.begin(TASK, second, GRANT) == asked.id


def test_a_third_round_continues_the_second(rounds, asked):
    second = again(asked, "s", rpc_id=2)
    rounds.begin(TASK, second, GRANT)
    rounds.heard(second, asks("t", 2).encode())
    rounds.end(second.id, sent=True)
    assert rounds.begin(TASK, again(asked, "t"), GRANT) == asked.id


def test_a_state_is_good_for_one_repetition(rounds, asked):
    rounds.begin(TASK, again(asked, "s"), GRANT)
    third = again(asked, "s")
    assert rounds.as_continued(TASK, third, (grant(),)) == (grant(),)
    assert rounds.begin(TASK, third, GRANT) == third.id


def test_a_repetition_of_which_nothing_was_sent_can_be_made_again(rounds, asked):
    second = again(asked, "s")
    rounds.begin(TASK, second, GRANT)
    rounds.end(second.id, sent=False)
    assert rounds.begin(TASK, again(asked, "s"), GRANT) == asked.id


@pytest.mark.parametrize(
    "members",
    [{"arguments": {"what": "wall"}}, {"tool": "burn"}, {"server": "other"}, {"action": "prompts/get"}],
    ids=str,
)
def test_another_call_continues_nothing(rounds, asked, members):
    other = again(asked, "s", **members)
    assert rounds.as_continued(TASK, other, (grant(),)) == (grant(),)
    assert rounds.begin(TASK, other, GRANT) == other.id


def test_another_state_task_or_grant_continues_nothing(rounds, asked):
    for task, state, of in ((TASK, "S", GRANT), (OTHER_TASK, "s", GRANT), (TASK, "s", GrantId("grant-2"))):
        other = again(asked, state)
        assert rounds.begin(task, other, of) == other.id


@pytest.mark.parametrize(
    "answer",
    [asks("s", rpc_id=2), asks("s", kind="complete"), asks(7), "input_required", '["input_required"]', "{"],
)
def test_only_an_answer_that_asks_is_kept(rounds, answer):
    one = call()
    rounds.begin(TASK, one, GRANT)
    rounds.heard(one, answer)
    assert len(rounds) == 0


def test_a_client_that_cannot_be_asked_has_one_round(rounds):
    one = call(meta={})
    assert rounds.begin(TASK, one, GRANT) is None
    rounds.heard(one, asks("s"))
    rounds.end(one.id, sent=True)
    assert len(rounds) == 0


def test_what_has_ended_gets_nothing_back(rounds, asked):
    revoked = grant(state=GrantState.REVOKED)
    assert rounds.as_continued(TASK, again(asked, "s"), (revoked,)) == (revoked,)
    running = call()
    rounds.begin(TASK, running, GRANT)
    rounds.forget(TASK)
    rounds.heard(running, asks("late"))
    rounds.end(running.id, sent=False)
    rounds.end(CallId("unknown"), sent=True)
    assert len(rounds) == 0


def test_waiting_rounds_are_bounded(rounds):
    for number in range(100):
        one = call()
        rounds.begin(TASK, one, GRANT)
        rounds.heard(one, asks(f"s{number}"))
        rounds.end(one.id, sent=True)
    assert len(rounds) == 64
