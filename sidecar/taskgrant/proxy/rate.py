"""Rate limits by the generic cell rate algorithm: one number a key, no timer, refusing instead of waiting.

A limit of *n* a minute lets a burst of *n* pass, then one each 60/n seconds.
"""

from taskgrant.model.ids import TaskId
from taskgrant.model.time import Instant

_MINUTE = 60.0


class RateLimiter:
    """Counts by task, server and tool. Forgets a task when it ends."""

    def __init__(self) -> None:
        self._arrivals: dict[TaskId, dict[tuple[str, str], float]] = {}

    def admit(self, task: TaskId, server: str, tool: str, per_minute: int, now: Instant) -> bool:
        """True when one more call keeps to the limit; only then is it counted."""
        interval = _MINUTE / per_minute
        of_task = self._arrivals.setdefault(task, {})
        arrival = max(of_task.get((server, tool), now), now)
        if arrival - now > _MINUTE - interval:
            return False
        of_task[(server, tool)] = arrival + interval
        return True

    def forget(self, task: TaskId) -> None:
        self._arrivals.pop(task, None)
