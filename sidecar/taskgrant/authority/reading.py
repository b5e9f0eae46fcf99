"""Answers to "show me": from memory what is live or has just ended, from the database what is older."""

from taskgrant.authority.engine import Engine
from taskgrant.authority.lifecycle import TaskLife
from taskgrant.authority.store import repository
from taskgrant.errors import Refused
from taskgrant.model.codes import Code
from taskgrant.model.grant import Grant
from taskgrant.model.ids import GrantId, TaskId
from taskgrant.model.task import Task

_MAX_PAGE = 1001  # a page of 1,000 and one more, which tells that there is another page


class Reading:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def task(self, task: TaskId) -> tuple[Task, tuple[Grant, ...]]:
        """Raises ``Refused`` (not_found)."""
        life = self._engine.registry.find(task)
        if life is not None:
            return life.shown(), tuple(life.grants.values())
        found = await self._engine.store.read(
            lambda db: (repository.find_task(db, task), repository.grants_of(db, task))
        )
        if found[0] is None:
            raise Refused(Code.NOT_FOUND, "there is no such task")
        return found[0], tuple(found[1])

    async def grant(self, grant: GrantId) -> Grant:
        """Raises ``Refused`` (not_found)."""
        life = self._engine.registry.of_grant(grant)
        if life is not None:
            return life.grants[grant]
        found = await self._engine.store.read(lambda db: repository.find_grant(db, grant))
        if found is None:
            raise Refused(Code.NOT_FOUND, "there is no such grant")
        return found

    async def tasks(self, after: TaskId | None, limit: int) -> tuple[Task, ...]:
        """Newest first, as memory knows them where it does: counters and ends may not be written yet."""
        limit = min(max(limit, 1), _MAX_PAGE)
        stored = await self._engine.store.read(lambda db: repository.page_tasks(db, after, limit))
        return tuple(self._current(task) for task in stored)

    async def grants(self, after: GrantId | None, limit: int) -> tuple[Grant, ...]:
        """Newest first."""
        limit = min(max(limit, 1), _MAX_PAGE)
        stored = await self._engine.store.read(lambda db: repository.page_grants(db, after, limit))
        lives = [self._engine.registry.of_grant(grant.id) for grant in stored]
        return tuple(_of(life, grant) for life, grant in zip(lives, stored, strict=True))

    def _current(self, task: Task) -> Task:
        life = self._engine.registry.find(task.id)
        return task if life is None else life.shown()


def _of(life: TaskLife | None, grant: Grant) -> Grant:
    return grant if life is None else life.grants.get(grant.id, grant)
