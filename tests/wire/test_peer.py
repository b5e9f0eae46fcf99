"""Whose socket is at the other end: asked of the kernel, about real connections of real users."""

import os
import socket
import subprocess
import sys

import pytest

from taskgrant.wire import peer

_CLIENT = """
import os, socket, sys
uid, family, host, port = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
if os.getuid() != uid:
    os.setuid(uid)
client = socket.socket(family)
client.connect((host, port))
sys.stdin.read()
"""


@pytest.fixture(params=[(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")], ids=["IPv4", "IPv6"])
def listener(request: pytest.FixtureRequest):
    family, host = request.param
    with socket.socket(family) as server:
        server.bind((host, 0))
        server.listen()
        yield server


def test_our_own_connection(listener: socket.socket) -> None:
    address = listener.getsockname()[:2]
    with socket.create_connection(address) as client, listener.accept()[0]:
        assert peer.owner(client.getsockname()[:2], address) == os.getuid()


def test_another_user_s_connection(listener: socket.socket) -> None:
    uid = 54321 if os.getuid() == 0 else os.getuid()
    host, port = listener.getsockname()[:2]
    command = [sys.executable, "-I", "-c", _CLIENT, str(uid), str(int(listener.family)), host, str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        connection, client = listener.accept()
        with connection:
            assert peer.owner(client[:2], (host, port)) == uid
        assert process.stdin is not None
        process.stdin.close()
    assert process.returncode == 0


def test_a_client_that_has_closed(listener: socket.socket) -> None:
    address = listener.getsockname()[:2]
    client = socket.create_connection(address)
    with listener.accept()[0]:
        name = client.getsockname()[:2]
        client.close()
        assert peer.owner(name, address) is None


def test_a_listener_is_not_taken_for_a_connection(listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    assert peer.owner((host, port), (host, 9)) is None


def test_a_dual_stack_client() -> None:
    with socket.socket() as server, socket.socket(socket.AF_INET6) as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(("::ffff:127.0.0.1", server.getsockname()[1]))
        connection, name = server.accept()
        with connection:
            assert peer.owner(name, server.getsockname()) == os.getuid()


@pytest.mark.parametrize(
    "client, server",
    [
        (("::1", 1), ("127.0.0.1", 2)),
        (("localhost", 1), ("127.0.0.1", 2)),
        (("127.0.0.1", 1), ("127.0.0.1", 2)),
    ],
)
def test_what_cannot_be_found(client: tuple[str, int], server: tuple[str, int]) -> None:
    assert peer.owner(client, server) is None
