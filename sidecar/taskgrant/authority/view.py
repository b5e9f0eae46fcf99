"""What is true now, for the proxy: synchronous, over the same memory that the authority changes."""

from typing import Final

from taskgrant.authority import lifecycle
from taskgrant.authority.clock import AlarmClock
from taskgrant.authority.config import Binding
from taskgrant.authority.credentials import digest
from taskgrant.authority.freezes import Freezes
from taskgrant.authority.lifecycle import TaskLife
from taskgrant.authority.registry import Registry
from taskgrant.model.call import Caller, Refusal
from taskgrant.model.codes import Code
from taskgrant.model.grant import Grant
from taskgrant.model.ids import TaskId
from taskgrant.model.task import Task
from taskgrant.model.time import Instant

_FENCED: Final = Refusal(Code.AUTHORITY_UNAVAILABLE, "another instance of the authority has taken over")
_INVALID: Final = Refusal(Code.HANDLE_INVALID, "the task handle that was shown belongs to no task")
_ANOTHERS: Final = Refusal(
    Code.HANDLE_INVALID, "the task handle that was shown is not that of this user's task"
)
_STRANGER: Final = Refusal(Code.PEER_REFUSED, "the caller's user is not known, or is one that no task has")
_AMBIGUOUS: Final = Refusal(Code.NO_TASK, "more than one task has this user, so none can be said to be meant")
_NONE: Final = Refusal(Code.NO_TASK, "no task is running that has this user")


class LocalView:
    """Implements ``model.ports.View``."""

    def __init__(self, registry: Registry, freezes: Freezes, clock: AlarmClock, binding: Binding) -> None:
        self._registry = registry
        self._freezes = freezes
        self._clock = clock
        self._binding = binding

    def bind(self, caller: Caller) -> Task | Refusal:
        """The task that a caller's calls belong to. A handle that is shown fits, whatever the binding, or the answer is
        no.
        """
        if self._registry.fenced:
            return _FENCED
        if self._binding is Binding.UID:
            return self._of_uid(caller)
        if caller.handle is not None:
            shown = self._registry.by_handle(digest(caller.handle))
            return _INVALID if shown is None else self._now(shown)
        if self._binding is Binding.HANDLE:
            return Refusal(Code.NO_TASK, "no task handle was shown; calls must say which task they belong to")
        for life in self._registry.lives.values():
            return self._now(life)
        return self._idle()

    def _of_uid(self, caller: Caller) -> Task | Refusal:
        if caller.uid is None or caller.uid == 0:
            return _STRANGER
        now = self._clock.now()
        lives = [lifecycle.at(life, now) for life in self._registry.of_uid(caller.uid)]
        tasks = [life.task for life in lives if life.task.live]
        if len(tasks) > 1:  # no start allows it; an earlier start may have been under another binding
            return _AMBIGUOUS
        if caller.handle is not None:
            shown = self._registry.by_handle(digest(caller.handle))
            return _ANOTHERS if shown is None or shown.task.uid != caller.uid else self._now(shown)
        return tasks[0] if tasks else _NONE

    def _now(self, life: TaskLife) -> Task | Refusal:
        life = lifecycle.at(life, self._clock.now())
        if not life.task.live:
            return Refusal(
                Code.TASK_ENDED, f"the task is over ({life.task.state.value}); its access ended with it"
            )
        return life.task

    def _idle(self) -> Refusal:
        last = self._registry.last_ended()
        if last is None:
            return Refusal(Code.NO_TASK, "no task is running, so nothing is allowed")
        return Refusal(Code.NO_TASK, f"no task is running; the last one is over ({last.task.state.value})")

    def live(self, task: TaskId, now: Instant) -> tuple[Grant, ...]:
        """All grants of the task as they stand at ``now``, also of one that has ended; none for an unknown task."""
        life = self._registry.find(task)
        return () if life is None else tuple(lifecycle.at(life, now).grants.values())

    def frozen(self, task: Task | None, server: str, tool: str | None) -> bool:
        whole = self._freezes.covers_all() if task is None else self._freezes.covers_task(task)
        return whole or self._freezes.covers_tool(server, tool)

    @property
    def fenced(self) -> bool:
        """True once another instance has taken over: nothing is allowed here any more."""
        return self._registry.fenced

    def live_tasks(self) -> int:
        return len(self._registry.lives)

    def live_grants(self) -> int:
        return sum(
            grant.state.live for life in self._registry.lives.values() for grant in life.grants.values()
        )
