"""Connections to hosts that are listed as opaque: let through unread, whatever they speak, from their first byte on.

    accept → whose, and whom for → listed by name (CONNECT) or by address (redirected)? → bytes, to that host only

Who dials such a host need not say anything first, as many protocols have it: nothing is waited for.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from taskgrant.errors import Refused
from taskgrant.model.egress import EgressHosts
from taskgrant.wire.listener import Accepted
from taskgrant.wire.splice import Splice

#: Whether a connection was taken; False leaves it as it was. Raises ``errors.Refused``.
Unread = Callable[[Accepted], Awaitable[bool]]


async def nothing(accepted: Accepted) -> bool:
    """Takes none."""
    return False


class Opaque:
    def __init__(self, hosts: EgressHosts, splice: Splice) -> None:
        self._hosts = hosts
        self._splice = splice

    async def take(self, accepted: Accepted) -> bool:
        """An ``Unread``. Returns when a connection that was taken is over."""
        where = accepted.tunnel or accepted.dialled
        host = None if where is None else self._hosts.opaque(*where)
        if host is None:
            return False
        listener = "transparent" if accepted.tunnel is None else "proxy"
        caller = replace(accepted.caller(listener), dialled=host.name)
        try:
            await self._splice(accepted, caller, host)
        except Refused as refused:
            refused.details |= {"recorded": True, "dialled": host.name}
            raise
        return True
