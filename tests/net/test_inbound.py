"""Connections from elsewhere to the ports that are open for them: served, answered, and no way out for the agent."""

import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.e2e.processes import wait_for
from tests.net.pod import ADMIN, PORT, SERVED, Pod
from tests.net.test_bypass import ARRIVES, REFUSED, STOPPED, attempt, nobody_hears
from tests.net.world import UPSTREAM

AGENT4, AGENT6 = "198.51.100.2", "2001:db8:7467::2"
SOON = 30.0

SERVE = """
import json, pathlib, socket, struct, sys
host, port, sign, how = sys.argv[1:]
family = socket.AF_INET6 if ":" in host else socket.AF_INET
with socket.create_server((host, int(port)), family=family) as listening:
    pathlib.Path(sign).touch()
    one, peer = listening.accept()
with one:
    one.settimeout(30)
    asked = one.recv(100)
    one.sendall(b"heard " + asked)
    rest = one.recv(1)
    if how == "reset":
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
print(json.dumps([asked.decode(), rest.decode(), peer[:2]]))
"""


@contextmanager
def serving(pod: Pod, how: str = "close", host: str = AGENT4) -> Iterator[Future[str]]:
    """An agent that listens at its inbound port, for one connection."""
    sign = pod.directory / "agent" / "serves"
    sign.unlink(missing_ok=True)
    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(pod.try_python, SERVE, host, SERVED, sign, how)
        wait_for(sign.exists, "the agent listens", pod.process)
        yield told


def dial(pod: Pod, host: str, port: int, seconds: float = SOON) -> socket.socket:
    """A connection from elsewhere."""
    sock = pod.world.enter(lambda: socket.create_connection((host, port), seconds))
    sock.settimeout(SOON)
    return sock


@pytest.mark.parametrize("host", [AGENT4, AGENT6])
def test_who_is_elsewhere_reaches_what_the_agent_serves_and_is_answered(pod, host):
    with serving(pod, host=host) as told, dial(pod, host, SERVED) as client:
        own = client.getsockname()[:2]
        client.sendall(b"a probe")
        assert client.recv(100) == b"heard a probe"
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
        assert json.loads(told.result(SOON)) == ["a probe", "", list(own)]


def test_a_probe_of_the_sidecar_is_answered(pod):
    url = f"http://{AGENT4}:{ADMIN}/readyz"
    assert pod.world.check("curl", "-sS", "--max-time", "20", "-H", "connection: close", url) == "ready\n"


@pytest.mark.parametrize("port", [PORT, 15002, 15053, SERVED + 1])
def test_no_other_port_is_open_to_others(pod, port):
    """The packet is dropped: nobody says so."""
    with pytest.raises(TimeoutError):
        dial(pod, AGENT4, port, 0.3)


def test_the_ports_are_no_way_round_the_sidecar_from_inside(pod):
    """The agent dials them, or from them."""
    with nobody_hears(pod):
        assert attempt(pod, "admin") == REFUSED
        assert attempt(pod, "tcp-from", SERVED, "192.0.2.1", 80) == ARRIVES
        assert attempt(pod, "tcp-from", ADMIN, "192.0.2.1", 443) in (ARRIVES, "EADDRINUSE")
        assert attempt(pod, "udp-from", SERVED, 443) == STOPPED
        assert attempt(pod, "udp-from", ADMIN, 443) == STOPPED


@pytest.mark.parametrize("how", ["close", "reset"])
def test_who_has_just_been_connected_is_not_dialled_back_past_the_sidecar(pod, how):
    """The kernel still knows the connection that they opened; the agent begins another between the same two ends."""
    with serving(pod, how) as told, dial(pod, AGENT4, SERVED) as client:
        client.sendall(b"x")
        assert client.recv(100) == b"heard x"
        client.sendall(b"y")
        told.result(SOON)
        own = client.getsockname()[1]
        try:
            assert client.recv(1) == b""
        except ConnectionResetError:
            assert how == "reset"
    with nobody_hears(pod), pod.world.listen(UPSTREAM, own) as listening:
        told_back = attempt(pod, "tcp-from", SERVED, UPSTREAM, own)
        assert re.fullmatch(f"{ARRIVES}|TIMEOUT|EADDRNOTAVAIL", told_back), told_back
        listening.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listening.accept()
