"""Who is at the other end of the control socket: the kernel's word (SO_PEERCRED) → a principal with roles.

Nothing in a request can change it. A uid that no role lists is refused before anything else is looked at.
"""

import grp
import pwd
import socket
import struct
from collections.abc import Mapping, Sequence

from taskgrant.errors import ConfigurationError, Refused
from taskgrant.model.codes import Code
from taskgrant.model.principal import Principal, Role

_UCRED = struct.Struct("=iII")  # struct ucred: pid, uid, gid (unix(7))
_NOBODY = 0xFFFFFFFF  # what a socket without a peer has for its uid


def resolve_uid(account: int | str) -> int:
    """The uid of an account. Raises KeyError for a name that this machine does not know."""
    if isinstance(account, int):
        return account
    return int(account) if account.isascii() and account.isdigit() else pwd.getpwnam(account).pw_uid


def resolve_gid(group: int | str) -> int:
    """The gid of a group. Raises KeyError for a name that this machine does not know."""
    if isinstance(group, int):
        return group
    return int(group) if group.isascii() and group.isdigit() else grp.getgrnam(group).gr_gid


class Peers:
    """The role table, by uid."""

    def __init__(self, roles: Mapping[Role, Sequence[int | str]]) -> None:
        """Raises ConfigurationError with every account that is unknown here."""
        by_uid: dict[int, set[Role]] = {}
        faults = []
        for role, accounts in roles.items():
            for account in accounts:
                try:
                    by_uid.setdefault(resolve_uid(account), set()).add(role)
                except KeyError:
                    faults.append(f"control.roles.{role.value}: there is no user {account!r} on this machine")
        if faults:
            raise ConfigurationError(faults)
        self._roles = {uid: frozenset(its) for uid, its in by_uid.items()}

    def roles(self, uid: int) -> frozenset[Role]:
        return self._roles.get(uid, frozenset())

    @property
    def uids(self) -> frozenset[int]:
        """Those that have a role."""
        return frozenset(uid for uid, roles in self._roles.items() if roles)

    def principal(self, uid: int | None) -> Principal:
        """Raises Refused (forbidden) for a uid without a role, and when the kernel could not say who it
        is."""
        roles = self.roles(uid) if uid is not None else frozenset()
        if not roles:
            who = "a peer that the kernel does not name" if uid is None else f"uid {uid}"
            raise Refused(Code.FORBIDDEN, f"{who} has no role here; control.roles lists those who have one")
        return Principal(f"uid:{uid}", roles)


def peer_uid(connection: socket.socket | None) -> int | None:
    """The uid that connected, or None when the kernel does not say (not a Unix socket, or already closed)."""
    if connection is None or connection.family != socket.AF_UNIX:
        return None
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    except OSError:
        return None
    # The pid is no sign of anything: it is 0 for a peer in another PID namespace, as another container's process is.
    _, uid, _ = _UCRED.unpack(raw)
    return None if uid == _NOBODY else uid
