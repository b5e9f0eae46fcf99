"""Contexts by name: few, fresh, and the same one while it lasts."""

import ssl
import tempfile
from pathlib import Path

import pytest

from taskgrant.identity import leaves
from taskgrant.identity.leaves import LeafContexts
from taskgrant.identity.pod_ca import PodCa


@pytest.fixture
def ca(clock):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        yield PodCa.open(Path(directory), clock)


def test_the_same_context_while_it_lasts(ca, clock):
    contexts = LeafContexts(ca, clock)
    first = contexts.of("a.example")
    clock.at += 21 * 3600
    assert contexts.of("a.example") is first
    clock.at += 2 * 3600
    assert contexts.of("a.example") is not first
    assert len(contexts) == 1


def test_the_least_recently_used_goes(ca, clock):
    contexts = LeafContexts(ca, clock, limit=2)
    a = contexts.of("a.example")
    contexts.of("b.example")
    contexts.of("a.example")
    contexts.of("c.example")
    assert contexts.of("a.example") is a
    assert len(contexts) == 2


def test_however_many_names_take_no_more_memory_than_a_few(ca, clock):
    contexts = LeafContexts(ca, clock, limit=16)
    resident = []
    for number in range(600):
        contexts.of(f"n{number}.example")
        if number in (99, 599):
            resident.append(_resident())
    assert len(contexts) == 16
    assert resident[1] - resident[0] < 4 << 20


def test_sessions_that_openssl_keeps_are_bounded(ca, clock, monkeypatch):
    monkeypatch.setattr(leaves, "_SESSIONS", 20)
    contexts = LeafContexts(ca, clock)
    speaking = ssl.create_default_context(cadata=ca.certificate.decode())
    speaking.maximum_version = ssl.TLSVersion.TLSv1_2
    used = set()
    for _ in range(50):
        context = contexts.of("a.example")
        used.add(context)
        _converse(speaking, context)
        assert context.session_stats()["number"] <= 20
    assert len(used) == 3


def _converse(speaking: ssl.SSLContext, context: ssl.SSLContext) -> None:
    """A handshake and a close that both sides take part in: such a session OpenSSL keeps."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = speaking.wrap_bio(to_client, to_server, server_hostname="a.example")
    ours = context.wrap_bio(to_server, to_client, server_side=True)
    for step in ("do_handshake", "unwrap"):
        for _ in range(3):
            for side in (theirs, ours):
                try:
                    getattr(side, step)()
                except (ssl.SSLWantReadError, ssl.SSLError):
                    continue


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096
