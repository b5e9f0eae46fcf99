"""The credentials of running tasks: one per task and audience, minted at the first allowed call that needs it.

A credential is remade when it is about to expire or when the task's grants for its audience have changed, and it is
dropped, key and all, when its task ends. Calls that meet while one is minted share it.
"""

import asyncio
from collections.abc import Iterable

from taskgrant.model.credential import Issued
from taskgrant.model.event import Revocation
from taskgrant.model.grant import Grant
from taskgrant.model.ids import GrantId, TaskId
from taskgrant.model.ports import Authority
from taskgrant.model.time import Clock
from taskgrant.wire.credentials import Keyring
from taskgrant.wire.upstream import HttpUpstream

#: A credential with less than this left is remade, if a new one would live longer.
_RENEW_SECONDS = 10.0


class Credentials:
    def __init__(self, authority: Authority, keyring: Keyring, upstream: HttpUpstream, clock: Clock) -> None:
        self._authority = authority
        self._keyring = keyring
        self._upstream = upstream
        self._clock = clock
        self._issued: dict[TaskId, dict[str, Issued]] = {}
        self._locks: dict[tuple[TaskId, str], asyncio.Lock] = {}

    def __len__(self) -> int:
        return sum(len(of_task) for of_task in self._issued.values())

    async def get(self, task: TaskId, server: str, grants: Iterable[Grant]) -> Issued:
        """The credential for calls to ``server``. Raises ``errors.Refused`` when the authority does not sign."""
        covering = [grant for grant in grants if grant.server == server and grant.state.live]
        if (issued := self._usable(task, server, covering)) is not None:
            return issued
        lock = self._locks.setdefault((task, server), asyncio.Lock())
        async with lock:
            if (issued := self._usable(task, server, covering)) is not None:
                return issued
            fresh = await self._keyring.mint(server, lambda csr: self._authority.issue(task, server, csr))
            old = self._issued.setdefault(task, {}).get(server)
            self._issued[task][server] = fresh
            if old is not None:
                self._keyring.drop(old.serial)
                self._upstream.retire(old.serial)
            return fresh

    def _usable(self, task: TaskId, server: str, covering: list[Grant]) -> Issued | None:
        issued = self._issued.get(task, {}).get(server)
        if issued is None or not covering:
            return None
        if frozenset(issued.grants) != frozenset(grant.id for grant in covering):
            return None
        now = self._clock.now()
        longest = max(grant.expires_at for grant in covering)
        if issued.not_after - now < _RENEW_SECONDS and issued.not_after < longest:
            return None
        return issued if issued.not_after > now else None

    def apply(self, revocation: Revocation) -> None:
        """Drops what ended: all of an ended task's, and those that name an ended grant."""
        for task in revocation.tasks:
            for issued in self._issued.pop(task, {}).values():
                self._keyring.drop(issued.serial)
            for key in [key for key in self._locks if key[0] == task]:
                del self._locks[key]
        if revocation.grants:
            self._drop_naming(revocation.grants)

    def _drop_naming(self, grants: frozenset[GrantId]) -> None:
        for of_task in self._issued.values():
            for server in [name for name, issued in of_task.items() if grants.intersection(issued.grants)]:
                self._keyring.drop(of_task.pop(server).serial)
