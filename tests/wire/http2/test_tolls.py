import pytest

from taskgrant.errors import Refused
from taskgrant.protocols.http2 import Frame
from taskgrant.wire.http2.tolls import Tolls

DATA, HEADERS, RESET, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION, UNKNOWN = 0, 1, 3, 4, 6, 8, 9, 99
END = 0x1


def bought(tolls: Tolls, frame: Frame, now: float = 0.0, most: int = 100_000) -> int:
    for count in range(most):
        try:
            tolls.pay(frame, now)
        except Refused:
            return count
    return most


@pytest.mark.parametrize(
    ("frame", "count"),
    [
        (Frame(RESET, 0, 4), 200),
        *[(Frame(kind, 0, 8), 1000) for kind in (SETTINGS, PING, WINDOW_UPDATE, CONTINUATION, UNKNOWN)],
        (Frame(DATA, 0, 0), 1000),
        (Frame(DATA, 0, 63), 1000),
    ],
)
def test_what_asks_for_nothing_can_be_sent_so_often(frame, count):
    assert bought(Tolls(0.0), frame) == count


@pytest.mark.parametrize("frame", [Frame(DATA, 0, 64), Frame(DATA, END, 0), Frame(HEADERS, 0, 10)])
def test_what_asks_for_something_is_free(frame):
    assert bought(Tolls(0.0), frame, most=5_000) == 5_000


def test_time_and_what_is_sent_fill_the_purse_and_never_more_than_that():
    tolls = Tolls(0.0)
    ping = Frame(PING, 0, 8)
    bought(tolls, ping)
    assert bought(tolls, ping, 1.0) in (99, 100)
    tolls.sent()
    assert bought(tolls, ping, 1.0) in (2, 3, 4)
    assert bought(tolls, ping, 1e6) == 1000
