"""The listener that redirected connections come to: whoever dialled whatever, by the first bytes on to who speaks it.

accept → whom was it for (SO_ORIGINAL_DST) → whose (uid) → [let through unread] → first bytes → a speaker, or refused
"""

import errno
import socket
from collections.abc import Container, Mapping

from taskgrant.errors import ConfigurationError, Refused
from taskgrant.model.codes import Code
from taskgrant.wire import peer
from taskgrant.wire.config import ListenConfig
from taskgrant.wire.dispatching import DispatchingListener, Speaker
from taskgrant.wire.listener import BACKLOG, Accepted
from taskgrant.wire.opaque import Unread, nothing
from taskgrant.wire.opening import Opening
from taskgrant.wire.redirect.original import objection, original_dst
from taskgrant.wire.serving import Handler, Refusing
from taskgrant.wire.tunnel import Admit, none

_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


class TransparentListener(DispatchingListener):
    """Listens on both loopbacks, since the kernel redirects IPv4 to 127.0.0.1 and IPv6 to ::1."""

    def __init__(
        self,
        bind: str,
        handler: Handler,
        config: ListenConfig,
        expected_uids: Container[int],
        on_refused: Refusing,
        speakers: Mapping[Opening, Speaker] | None = None,
        admit: Admit = none,
        unread: Unread = nothing,
        *,
        direct: bool = False,
    ) -> None:
        """``direct``: who dials the listener itself is served as by a proxy, instead of being refused.

        Raises ``errors.ConfigurationError`` for an address that is not 127.0.0.1.
        """
        super().__init__(
            "transparent", bind, handler, config, expected_uids, on_refused, speakers, admit, unread
        )
        if self._address[0] != "127.0.0.1":
            raise ConfigurationError([f"listen.transparent: {bind!r} is not 127.0.0.1, where redirects end"])
        self._direct = direct

    def _listen_too(self) -> None:
        try:
            self._sockets.append(
                socket.create_server(("::1", self._port), family=socket.AF_INET6, backlog=BACKLOG)
            )
        except OSError as error:
            if error.errno not in _NO_IPV6:
                self._sockets.pop().close()
                raise

    def _admit(self, sock: socket.socket) -> Accepted:
        client, own = sock.getpeername()[:2], sock.getsockname()[:2]
        dialled = original_dst(sock)
        uid = peer.owner(client, own) if dialled is None else peer.owner_of_redirected(sock, dialled)
        return Accepted(sock, uid, dialled, f"{client[0]}:{client[1]}")

    def _check(self, accepted: Accepted) -> None:
        if accepted.uid is None or accepted.uid not in self._expected:
            raise Refused(Code.PEER_REFUSED, "this listener is for the agent's processes only")
        if accepted.dialled is None and not self._direct:
            raise Refused(Code.FORBIDDEN, "the sidecar's own address was dialled")
        if accepted.dialled is not None and (reason := objection(accepted.dialled)) is not None:
            raise Refused(Code.FORBIDDEN, reason)
