"""Whose the other end of a socket is."""

import os
import socket
import subprocess
import sys

import pytest

from taskgrant.api.peers import peer_uid

SERVER = """
import socket, sys
from taskgrant.api.peers import peer_uid
with socket.socket(socket.AF_UNIX) as listening:
    listening.bind(sys.argv[1])
    listening.listen()
    print("listens", flush=True)
    print(peer_uid(listening.accept()[0]))
"""


def test_a_socket_without_a_peer_is_nobodys():
    with socket.socket(socket.AF_UNIX) as alone, socket.socket() as of_a_network:
        assert peer_uid(alone) is None
        assert peer_uid(of_a_network) is None
    assert peer_uid(None) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a PID namespace")
def test_a_peer_in_another_container_is_known(tmp_path):
    """Its process has no number where the server is; its uid is the same."""
    path = str(tmp_path / "socket")
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", SERVER, path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "listens\n"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            assert server.communicate(timeout=30)[0] == f"{os.geteuid()}\n"
