import asyncio
from dataclasses import dataclass, replace
from typing import cast

import pytest

from taskgrant.guard.checks import Bearer, Verified
from taskgrant.guard.flights import Flight, Flights
from taskgrant.guard.revocations import Ended
from tests.guard.test_checks import PEER, TOKEN

VERIFIED = Verified(Bearer(PEER, TOKEN), ("grant-1", "grant-2"))


@dataclass(eq=False)
class Aborted:
    """As much of a transport as cutting needs."""

    aborted: bool = False

    def abort(self) -> None:
        self.aborted = True


async def _work(flight: Flight) -> None:
    async with flight.scope():
        await asyncio.Event().wait()


def _transport() -> tuple[Aborted, asyncio.Transport]:
    made = Aborted()
    return made, cast(asyncio.Transport, made)


@pytest.mark.parametrize(
    "ended, cut",
    [
        (Ended(), 0),
        (Ended(tasks=frozenset({"task-1"})), 1),
        (Ended(tasks=frozenset({"task-2"})), 0),
        (Ended(grants=frozenset({"grant-1"})), 0),
        (Ended(grants=frozenset({"grant-1", "grant-2"})), 1),
        (Ended(serials=frozenset({"abc"})), 1),
        (Ended(jtis=frozenset({"jti-1"})), 1),
        (Ended(grants=frozenset({"grant-1"}), serials=frozenset({"abc"}), jtis=frozenset({"jti-1"})), 0),
        (Ended(grants=frozenset({"grant-9"}), jtis=frozenset({"jti-1"}), snapshot=True), 1),
    ],
)
async def test_what_is_cut(ended: Ended, cut: int) -> None:
    flights = Flights()
    flight = flights.begin(VERIFIED, _transport()[1])
    assert flights.cut(ended) == cut
    assert flight.is_cut is bool(cut)


async def test_grants_that_end_one_after_another_add_up() -> None:
    flights = Flights()
    flights.begin(VERIFIED, _transport()[1])
    assert flights.cut(Ended(grants=frozenset({"grant-1"}))) == 0
    assert flights.cut(Ended(grants=frozenset({"grant-2"}))) == 1


async def test_to_cut_aborts_both_sides_at_once_and_ends_the_work() -> None:
    flights = Flights()
    (client, client_side), (upstream, upstream_side) = _transport(), _transport()
    flight = flights.begin(VERIFIED, client_side)
    flight.attach(upstream_side)
    flight.answering = True
    working = asyncio.create_task(_work(flight))
    await asyncio.sleep(0)  # it has begun
    assert flights.cut_all() == 1
    assert client.aborted
    assert upstream.aborted
    with pytest.raises(TimeoutError):
        await working
    flights.end(flight)
    assert len(flights) == 0


async def test_a_client_that_has_got_nothing_yet_is_left_to_be_refused() -> None:
    flights = Flights()
    client, client_side = _transport()
    flights.begin(VERIFIED, client_side)
    flights.cut_all()
    assert not client.aborted


async def test_a_connection_that_serves_another_request_by_now_is_left_alone() -> None:
    flights = Flights()
    upstream, upstream_side = _transport()
    first = flights.begin(VERIFIED, _transport()[1])
    other = Verified(Bearer(PEER, replace(TOKEN, task=TOKEN.task + "2")), ("grant-3",))  # type: ignore[arg-type]
    second = flights.begin(other, _transport()[1])
    first.attach(upstream_side)
    second.attach(upstream_side)
    flights.cut(Ended(tasks=frozenset({"task-1"})))
    assert first.is_cut
    assert not upstream.aborted
    flights.end(first)
    flights.cut_all()
    assert upstream.aborted


async def test_a_connection_that_comes_after_the_cut_is_aborted() -> None:
    flights = Flights()
    upstream, upstream_side = _transport()
    flight = flights.begin(VERIFIED, _transport()[1])
    flight.cut()
    flight.cut()
    flight.attach(upstream_side)
    assert upstream.aborted
    with pytest.raises(TimeoutError):
        await _work(flight)
