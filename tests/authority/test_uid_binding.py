"""``task_binding: uid``: a call belongs to the live task whose uid owns the client's socket, by no other rule."""

import asyncio
from pathlib import Path

import pytest

from taskgrant.authority.config import Binding
from taskgrant.authority.view import LocalView
from taskgrant.errors import Refused
from taskgrant.model.call import Caller, Refusal
from taskgrant.model.codes import Code
from taskgrant.model.task import Outcome, Started, Task
from tests.authority.support import ORCHESTRATOR, Setting, opened, spec

ONE, TWO, IDLE, FOREIGN = 20_001, 20_002, 20_003, 30_000
UIDS = range(20_010)  # root's among them, to see that it is refused all the same


def by_uid(directory: Path):
    return opened(directory, task_binding=Binding.UID, uids=UIDS)


async def start(s: Setting, uid: int | None, **changes: object) -> Started:
    return await s.authority.start(spec(purpose=f"for {uid}", uid=uid, **changes), ORCHESTRATOR, None)


async def refused(s: Setting, uid: int | None) -> Code:
    with pytest.raises(Refused) as error:
        await start(s, uid)
    return Code(error.value.code)


def bound(view: LocalView, uid: int | None, handle: str | None = None) -> str:
    """The purpose of the task, or the code of the refusal."""
    answer = view.bind(Caller(uid=uid, listener="gateway", handle=handle))
    return answer.purpose if isinstance(answer, Task) else answer.code.value


async def test_each_uid_has_its_own_task(tmp_path: Path):
    async with by_uid(tmp_path) as s:
        view = s.authority.view
        await start(s, ONE)
        assert bound(view, TWO) == "no_task"  # also while another's is the only one
        await start(s, TWO)
        assert [bound(view, uid) for uid in (ONE, TWO)] == [f"for {ONE}", f"for {TWO}"]
        assert [bound(view, uid) for uid in (IDLE, FOREIGN)] == ["no_task", "no_task"]
        assert [bound(view, uid) for uid in (None, 0)] == ["peer_refused", "peer_refused"]


async def test_a_handle_must_agree_and_never_decides(tmp_path: Path):
    async with by_uid(tmp_path) as s:
        view = s.authority.view
        one, two = await start(s, ONE), await start(s, TWO)
        assert bound(view, ONE, one.handle) == f"for {ONE}"
        for uid, handle in ((ONE, two.handle), (ONE, "tgh_guess"), (ONE, ""), (IDLE, one.handle)):
            assert bound(view, uid, handle) == "handle_invalid"
        for nobody in (None, 0):
            assert bound(view, nobody, one.handle) == "peer_refused"
        fresh = await s.authority.rotate(one.task.id, ORCHESTRATOR)
        assert (bound(view, ONE, one.handle), bound(view, ONE, fresh)) == ("handle_invalid", f"for {ONE}")


async def test_a_uid_that_is_free_again_has_its_next_task(tmp_path: Path):
    async with by_uid(tmp_path) as s:
        view = s.authority.view
        first = await start(s, ONE)
        other = await start(s, TWO)
        await s.authority.end(first.task.id, Outcome.COMPLETE, ORCHESTRATOR)
        assert bound(view, ONE) == "no_task"
        assert bound(view, ONE, first.handle) == "task_ended"
        second = await start(s, ONE)
        assert bound(view, ONE, first.handle) == "task_ended"  # not the new one's
        answer = view.bind(Caller(uid=ONE, listener="gateway"))
        assert isinstance(answer, Task)
        assert answer.id == second.task.id
        s.clock.advance(1e6)
        assert (bound(view, ONE), bound(view, TWO, other.handle)) == ("no_task", "task_ended")
        await start(s, ONE)


async def test_a_task_needs_a_uid_that_it_may_have_and_that_is_free(tmp_path: Path):
    async with by_uid(tmp_path) as s:
        for uid in (None, 0, FOREIGN):
            assert await refused(s, uid) is Code.INVALID
        await start(s, ONE)
        assert await refused(s, ONE) is Code.CONFLICT
        await start(s, TWO)


async def test_of_two_that_start_at_once_with_one_uid_one_is_refused(tmp_path: Path):
    async with by_uid(tmp_path) as s:
        answers = await asyncio.gather(*(start(s, uid) for uid in (ONE, ONE, TWO)), return_exceptions=True)
        assert [isinstance(each, Started) for each in answers] == [True, False, True]
        assert isinstance(answers[1], Refused)
        assert answers[1].code == Code.CONFLICT
        assert bound(s.authority.view, ONE) == f"for {ONE}"


async def test_a_start_that_fails_leaves_the_uid_free(tmp_path: Path):
    async with by_uid(tmp_path) as s:
        with pytest.raises(Refused):
            await start(s, ONE, expires_in=-1.0)
        await start(s, ONE)


async def test_the_binding_survives_a_restart(tmp_path: Path):
    async with by_uid(tmp_path) as s:
        await start(s, ONE)
    async with by_uid(tmp_path) as s:
        assert (bound(s.authority.view, ONE), bound(s.authority.view, TWO)) == (f"for {ONE}", "no_task")
        assert await refused(s, ONE) is Code.CONFLICT


async def test_tasks_of_another_binding_are_nobodys_where_it_is_not_clear_whose(tmp_path: Path):
    async with opened(tmp_path, task_binding=Binding.HANDLE) as s:
        shared = [await start(s, ONE) for _ in range(2)]
        unbound = await start(s, None)
    async with by_uid(tmp_path) as s:
        view = s.authority.view
        for handle in (None, *(each.handle for each in shared)):
            answer = view.bind(Caller(uid=ONE, listener="gateway", handle=handle))
            assert isinstance(answer, Refusal)
            assert answer.code is Code.NO_TASK
        assert bound(view, TWO, unbound.handle) == "handle_invalid"
        await s.authority.end(shared[0].task.id, Outcome.CANCEL, ORCHESTRATOR)
        assert bound(view, ONE) == f"for {ONE}"
