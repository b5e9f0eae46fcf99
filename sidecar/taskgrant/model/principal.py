"""Who asks the control API, and which roles that peer has (design: one role table for every transport)."""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    ORCHESTRATOR = "orchestrator"  # starts and ends tasks, asks for grants
    APPROVER = "approver"  # says yes or no to pending grants; never to its own
    ADMIN = "admin"  # reads everything, revokes, freezes
    GUARD = "guard"  # reads events, bundle and CRL; introspects; acknowledges revocations
    SIDECAR = "sidecar"  # asks for credentials


@dataclass(frozen=True, slots=True)
class Principal:
    """A peer of the control API. ``id`` is ``uid:1000`` or a SPIFFE ID; it is what approvals compare."""

    id: str
    roles: frozenset[Role]

    def has(self, role: Role) -> bool:
        return role in self.roles


#: The process itself: expiry, fencing, the embedded sidecar.
SYSTEM = Principal("taskgrant", frozenset(Role))
