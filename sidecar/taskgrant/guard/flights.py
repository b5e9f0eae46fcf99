"""The requests that are running, and how one is cut: at once, and without waiting for anyone.

To cut aborts the connection to the tool server and, once an answer has begun, the one to the client too. Both
happen before ``cut`` returns: from then on no byte goes either way. An answer that has not begun becomes a
refusal.

What is cut: a request whose task has ended; one whose every covering grant has ended; and one that came with a
credential that an event names without saying why (alone, or in a snapshot). A credential that ends because *one* of its
grants did takes no other grant's requests with it: it is refused from then on, that is all.
"""

import asyncio
from collections.abc import Callable, Iterable
from contextvars import ContextVar

from taskgrant.guard.checks import Verified
from taskgrant.guard.revocations import Ended
from taskgrant.wire.transports import abort

#: The request on whose behalf a connection to the tool server is being asked for.
current: ContextVar["Flight"] = ContextVar("taskgrant_guard_flight")


class Flight:
    """One running request. ``client`` is the connection that it came on."""

    def __init__(self, verified: Verified, client: asyncio.Transport, owners: "Owners") -> None:
        self.verified = verified
        self.is_cut = False
        self.answering = False  # a byte of the answer may have gone to the client
        self._live = set(verified.grants)
        self._client = client
        self._owners = owners
        self._upstream: asyncio.Transport | None = None
        self._end_work: Callable[[], None] | None = None
        self._scope: asyncio.Timeout | None = None

    @property
    def connected(self) -> bool:
        """Whether a byte of the request may have reached the tool server."""
        return self._upstream is not None or self._end_work is not None

    def scope(self) -> asyncio.Timeout:
        """The time-out scope that the work on the request runs in: it ends when the request is cut."""
        self._scope = asyncio.timeout_at(asyncio.get_running_loop().time() if self.is_cut else None)
        return self._scope

    def attach(self, upstream: asyncio.Transport) -> None:
        """The connection to the tool server is this request's from now on."""
        self._upstream = upstream
        self._owners[upstream] = self
        if self.is_cut:
            abort(upstream)

    def works(self, end: Callable[[], None]) -> None:
        """A tool server that is no connection has the request from now on; ``end`` is called when it is cut."""
        self._end_work = end
        if self.is_cut:
            end()

    def detach(self) -> None:
        self._end_work = None
        if self._upstream is not None and self._owners.get(self._upstream) is self:
            del self._owners[self._upstream]

    def ended_by(self, ended: Ended) -> bool:
        """Takes in what has ended; whether this request has to end with it."""
        token = self.verified.bearer.token
        self._live -= ended.grants
        if token.task in ended.tasks or not self._live:
            return True
        alone = ended.snapshot or not (ended.tasks or ended.grants)
        return alone and (token.jti in ended.jtis or self.verified.bearer.peer.serial in ended.serials)

    def cut(self) -> None:
        if self.is_cut:
            return
        self.is_cut = True
        # A connection that went back to the pool may serve another request by now.
        if self._upstream is not None and self._owners.get(self._upstream) is self:
            abort(self._upstream)
        if self._end_work is not None:
            self._end_work()
        if self.answering:
            abort(self._client)
        if self._scope is not None:
            self._scope.reschedule(asyncio.get_running_loop().time())


Owners = dict[asyncio.Transport, Flight]


class Flights:
    def __init__(self) -> None:
        self._flights: set[Flight] = set()
        self._owners: Owners = {}

    def __len__(self) -> int:
        return len(self._flights)

    def begin(self, verified: Verified, client: asyncio.Transport) -> Flight:
        flight = Flight(verified, client, self._owners)
        self._flights.add(flight)
        return flight

    def end(self, flight: Flight) -> None:
        self._flights.discard(flight)
        flight.detach()

    def cut(self, ended: Ended) -> int:
        """Cuts what has to end; how many those were."""
        return _cut([flight for flight in self._flights if flight.ended_by(ended)])

    def cut_all(self) -> int:
        return _cut(tuple(self._flights))


def _cut(flights: Iterable[Flight]) -> int:
    count = 0
    for flight in flights:
        flight.cut()
        count += 1
    return count
