"""The credentials that are alive, and those that were revoked before they ran out: for revocations, CRL,
introspection.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace

from taskgrant.authority.store.statements import Credential
from taskgrant.model.ids import GrantId, TaskId
from taskgrant.model.time import Instant

# A CRL entry stays this long after its certificate has run out, for verifiers whose clocks are behind.
_SKEW_SECONDS = 60.0


class CredentialRegister:
    """Bounded by what can be alive at once: what has run out is dropped whenever something is added."""

    def __init__(self, credentials: Iterable[Credential]) -> None:
        self._by_serial: OrderedDict[str, Credential] = OrderedDict()
        self._by_digest: dict[bytes, str] = {}
        self._by_task: dict[TaskId, set[str]] = {}
        for credential in credentials:
            self._insert(credential)

    def add(self, credential: Credential, now: Instant) -> None:
        self.drop_expired(now)
        self._insert(credential)

    def _insert(self, credential: Credential) -> None:
        self._by_serial[credential.serial] = credential
        self._by_digest[credential.token_digest] = credential.serial
        self._by_task.setdefault(credential.task, set()).add(credential.serial)

    def find(self, token: str) -> Credential | None:
        """By the token: its digest is looked up, so that how long it takes says nothing about tokens."""
        serial = self._by_digest.get(digest(token))
        return None if serial is None else self._by_serial[serial]

    def get(self, serial: str) -> Credential | None:
        return self._by_serial.get(serial)

    def revoke(
        self, tasks: frozenset[TaskId], grants: frozenset[GrantId], owners: Iterable[TaskId], now: Instant
    ) -> tuple[Credential, ...]:
        """Marks those of the named tasks, and those of ``owners`` that name an ended grant; says which these are."""
        revoked = []
        for task in {*tasks, *owners}:
            for serial in self._by_task.get(task, ()):
                credential = self._by_serial[serial]
                if credential.revoked_at is not None:
                    continue
                if task in tasks or not grants.isdisjoint(credential.grants):
                    revoked.append(replace(credential, revoked_at=now))
        for credential in revoked:
            self._by_serial[credential.serial] = credential
        return tuple(revoked)

    def revoked(self, now: Instant) -> list[Credential]:
        """What a CRL lists."""
        self.drop_expired(now)
        return [credential for credential in self._by_serial.values() if credential.revoked_at is not None]

    def drop_expired(self, now: Instant) -> None:
        # In the order of issue, which is that of expiry up to the life of one credential.
        while self._by_serial:
            credential = next(iter(self._by_serial.values()))
            if now < credential.not_after + _SKEW_SECONDS:
                return
            del self._by_serial[credential.serial]
            self._by_digest.pop(credential.token_digest, None)
            serials = self._by_task[credential.task]
            serials.discard(credential.serial)
            if not serials:
                del self._by_task[credential.task]

    def __len__(self) -> int:
        return len(self._by_serial)


def digest(secret: str) -> bytes:
    """SHA-256: handles and tokens are random, so that nothing slower is needed."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
