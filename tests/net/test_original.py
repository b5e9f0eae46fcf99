"""SO_ORIGINAL_DST over real redirects: both families, and listeners of one or of both."""

import os
import socket
from collections.abc import Callable, Iterator

import pytest

from taskgrant.wire.redirect import nft
from taskgrant.wire.redirect.config import RedirectConfig
from taskgrant.wire.redirect.original import Dialled, objection, original_dst
from taskgrant.wire.redirect.ruleset import ruleset
from tests.net.world import UPSTREAM, World

#: Addresses that are routed and not this namespace's own.
FOR4, FOR6 = "192.0.2.99", "2001:db8::99"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    here = World()
    here.check("ip", "route", "add", f"{FOR4}/32", "dev", "lo")
    here.check("ip", "-6", "route", "add", f"{FOR6}/128", "dev", "lo")
    yield here
    here.close()


def redirected(world: World, listening: Callable[[], socket.socket], host: str) -> Dialled | None:
    """What the accepted end says about a connection to this host, port 8080."""

    def there() -> Dialled | None:
        with listening() as server:
            nft.apply(ruleset(RedirectConfig(uid=os.getuid() + 1337), server.getsockname()[1]))
            with socket.create_connection((host, 8080), timeout=10):
                server.settimeout(10)
                accepted, _ = server.accept()
                with accepted:
                    return original_dst(accepted)

    return world.enter(there)


def on4() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def on6() -> socket.socket:
    return socket.create_server(("::1", 0), family=socket.AF_INET6)


def on_both() -> socket.socket:
    return socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)


@pytest.mark.parametrize(
    ("listening", "host", "expected"),
    [
        (on4, FOR4, FOR4),
        (on4, f"::ffff:{FOR4}", FOR4),
        (on6, FOR6, FOR6),
        (on_both, FOR4, FOR4),
        (on_both, f"::ffff:{FOR4}", FOR4),
        (on_both, FOR6, FOR6),
    ],
)
def test_it_tells_what_was_dialled(world, listening, host, expected):
    assert redirected(world, listening, host) == Dialled(expected, 8080)


def test_an_address_of_this_namespace_is_nobodys(world):
    assert world.enter(lambda: objection(Dialled(UPSTREAM, 80))) is not None
    assert objection(Dialled(UPSTREAM, 80)) is None
