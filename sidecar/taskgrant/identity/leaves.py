"""TLS contexts that stand in for servers by name: made when first asked for, and few at a time.

Whoever asks has checked that the name may be dialled: nothing is signed for any other.
"""

import ssl
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from taskgrant.identity.contexts import intercepting_context
from taskgrant.identity.pod_ca import PodCa
from taskgrant.model.time import Clock

#: A context has some 20 KiB.
_LIMIT: Final = 256
_FRESH: Final = timedelta(hours=1)  # a certificate that ends sooner is replaced
#: OpenSSL keeps TLS 1.2 sessions of a context, 20,000 of them. A new context forgets them.
_SESSIONS: Final = 500


@dataclass(frozen=True, slots=True)
class _Held:
    context: ssl.SSLContext
    not_after: datetime


class LeafContexts:
    """The least recently used is dropped when there are too many; connections that were made with it go on."""

    def __init__(self, ca: PodCa, clock: Clock, limit: int = _LIMIT) -> None:
        self._ca = ca
        self._key = ca.leaf_key
        self._clock = clock
        self._limit = limit
        self._held: OrderedDict[str, _Held] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def of(self, name: str) -> ssl.SSLContext:
        """The context for a DNS name in lower case. Raises ValueError for what is none."""
        held = self._held.get(name)
        if held is None or not self._usable(held):
            leaf = self._ca.leaf(name)
            held = _Held(intercepting_context(leaf.chain, self._key, name), leaf.not_after)
            self._held[name] = held
        self._held.move_to_end(name)
        while len(self._held) > self._limit:
            self._held.popitem(last=False)
        return held.context

    def _usable(self, held: _Held) -> bool:
        now = datetime.fromtimestamp(self._clock.now(), UTC)
        return held.not_after - now >= _FRESH and held.context.session_stats()["number"] < _SESSIONS
