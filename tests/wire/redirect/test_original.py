"""Whom a connection was for: addresses that are nobody's tool server. (The redirect itself: tests/net.)"""

import socket

import pytest

from taskgrant.wire.redirect.original import Dialled, objection, original_dst


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.8.0.1", "::1", "0.0.0.0", "::",
        "169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%lo",
        "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "::ffff:169.254.169.254", "::ffff:127.0.0.1",
        "224.0.0.251", "ff02::1",
    ],
)  # fmt: skip
def test_nothing_is_to_be_found_at_an_address_of_this_kind(host):
    assert objection(Dialled(host, 80)) is not None


@pytest.mark.parametrize("host", ["192.0.2.1", "198.51.100.99", "2001:db8::1", "::ffff:192.0.2.1"])
def test_there_may_be_something_at_any_other(host):
    assert objection(Dialled(host, 80)) is None


def test_an_address_reads_as_it_is_written_in_a_url():
    assert str(Dialled("192.0.2.1", 80)) == "192.0.2.1:80"
    assert str(Dialled("2001:db8::1", 443)) == "[2001:db8::1]:443"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_connection_that_was_not_redirected_was_for_nobody(host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.create_server((host, 0), family=family) as listening,
        socket.create_connection(listening.getsockname()[:2]),
    ):
        accepted, _ = listening.accept()
        with accepted:
            assert original_dst(accepted) is None
