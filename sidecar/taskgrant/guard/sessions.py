"""MCP sessions of the tool server, each bound to the task that it was handed out to. Bounded, and gone with
its task.

A session is state at the tool server: under another task it would let one task see what another left there. A
session that is not known here, for whatever reason, is answered as one that is over (404): the client opens a
new one.
"""

from collections import OrderedDict


class Sessions:
    """``bound``: how many are remembered; beyond it the one unused for longest is forgotten."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._tasks: OrderedDict[str, str] = OrderedDict()  # session → task, the longest unused first
        self._of_task: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def bind(self, session: str, task: str) -> bool:
        """Binds a session that the tool server hands out. False when it is another task's already."""
        owner = self._tasks.get(session)
        if owner is not None:
            return owner == task
        self._tasks[session] = task
        self._of_task.setdefault(task, set()).add(session)
        while len(self._tasks) > self._bound:
            self.forget(next(iter(self._tasks)))
        return True

    def owned(self, session: str, task: str) -> bool:
        """Whether the session may be used under this task."""
        if self._tasks.get(session) != task:
            return False
        self._tasks.move_to_end(session)
        return True

    def forget(self, session: str) -> None:
        task = self._tasks.pop(session, None)
        if task is not None:
            mine = self._of_task[task]
            mine.discard(session)
            if not mine:
                del self._of_task[task]

    def end(self, task: str) -> tuple[str, ...]:
        """Forgets a task's sessions, and answers them: they are still open at the tool server."""
        ended = tuple(sorted(self._of_task.get(task, ())))
        for session in ended:
            self.forget(session)
        return ended
