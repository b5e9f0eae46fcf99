"""What is true now, in memory: live tasks, a short tail of ended ones, and who a handle, a uid, a grant belongs to."""

from collections import OrderedDict
from typing import NoReturn

from taskgrant.authority.lifecycle import TaskLife
from taskgrant.errors import Refused
from taskgrant.model.codes import Code
from taskgrant.model.ids import GrantId, TaskId
from taskgrant.model.task import Task

# Retries remembered for one task; forgetting one means that its next retry takes a use of its own.
_IDENTITIES = 10_000


class Registry:
    """Used from the event loop only. ``fenced``: another instance has taken over, nothing here is true any more."""

    def __init__(self, ended_kept: int) -> None:
        self.lives: dict[TaskId, TaskLife] = {}
        self.fenced = False
        self._ended: OrderedDict[TaskId, TaskLife] = OrderedDict()
        self._ended_kept = ended_kept
        self._grants: dict[GrantId, TaskId] = {}
        self._handles: dict[bytes, TaskId] = {}
        self._uids: dict[int, set[TaskId]] = {}
        self._identities: dict[TaskId, OrderedDict[tuple[GrantId, str], bool]] = {}

    def put(self, life: TaskLife) -> None:
        """Takes in a task as it now stands."""
        task = life.task
        before = self.lives.get(task.id)
        if before is not None and before.task.handle_digest != task.handle_digest:
            self._handles.pop(before.task.handle_digest, None)
        self._handles[task.handle_digest] = task.id
        for grant in life.grants:
            self._grants[grant] = task.id
        if task.live:
            self.lives[task.id] = life
            if task.uid is not None:
                self._uids.setdefault(task.uid, set()).add(task.id)
            return
        self.lives.pop(task.id, None)
        self._release(task)
        self._identities.pop(task.id, None)
        self._ended[task.id] = life
        while len(self._ended) > self._ended_kept:
            self._forget(self._ended.popitem(last=False)[1])

    def _release(self, task: Task) -> None:
        if task.uid is not None and (its := self._uids.get(task.uid)) is not None:
            its.discard(task.id)
            if not its:
                del self._uids[task.uid]

    def _forget(self, life: TaskLife) -> None:
        self._handles.pop(life.task.handle_digest, None)
        for grant in life.grants:
            self._grants.pop(grant, None)

    def find(self, task: TaskId) -> TaskLife | None:
        """The task if memory still holds it, live or ended."""
        return self.lives.get(task) or self._ended.get(task)

    def require(self, task: TaskId) -> TaskLife:
        """The live task. Raises ``Refused``: task_ended, or not_found when memory does not know it."""
        life = self.lives.get(task)
        if life is None:
            self._missing(task)
        return life

    def _missing(self, task: TaskId) -> NoReturn:
        ended = self._ended.get(task)
        if ended is not None:
            raise Refused(Code.TASK_ENDED, f"the task is {ended.task.state.value}")
        raise Refused(Code.NOT_FOUND, "there is no such live task")

    def by_handle(self, digest: bytes) -> TaskLife | None:
        task = self._handles.get(digest)
        return None if task is None else self.find(task)

    def of_uid(self, uid: int) -> tuple[TaskLife, ...]:
        """The tasks of a uid that have not been ended; one that is past its deadline may be among them."""
        return tuple(self.lives[task] for task in self._uids.get(uid, ()))

    def of_grant(self, grant: GrantId) -> TaskLife | None:
        task = self._grants.get(grant)
        return None if task is None else self.find(task)

    def last_ended(self) -> TaskLife | None:
        return next(reversed(self._ended.values()), None)

    # --- identities of uses --------------------------------------------------------------------------------------

    def identity(self, task: TaskId, grant: GrantId, identity: str) -> bool | None:
        """Whether the use with this identity is in flight; None when there is none."""
        known = self._identities.get(task)
        return None if known is None else known.get((grant, identity))

    def identify(self, task: TaskId, grant: GrantId, identity: str, in_flight: bool) -> None:
        if task not in self.lives:
            return
        known = self._identities.setdefault(task, OrderedDict())
        known[(grant, identity)] = in_flight
        while len(known) > _IDENTITIES:
            known.popitem(last=False)

    def forget_identity(self, task: TaskId, grant: GrantId, identity: str) -> None:
        known = self._identities.get(task)
        if known is not None:
            known.pop((grant, identity), None)
