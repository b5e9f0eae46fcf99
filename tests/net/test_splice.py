"""What is let through unread, in a task: a client that accepts one certificate and no other, for as long as something
moves; a protocol in which the server speaks first.
"""

import hashlib
import json
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from taskgrant.identity.contexts import server_context
from taskgrant.identity.csr import new_key
from taskgrant.identity.signer import LocalSigner
from taskgrant.model.ports import LeafProfile
from taskgrant.model.time import Instant
from tests.e2e.processes import wait_for
from tests.net.pod import Pod
from tests.net.test_bypass import nobody_hears
from tests.net.test_reach import COMMENT
from tests.net.world import ELSEWHERE, UPSTREAM
from tests.wire.support import SystemClock

PINNED = """
import hashlib, pathlib, socket, ssl, sys
host, port, pin, sign = sys.argv[1:]
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the pin says who it is
raw = socket.create_connection((host, int(port)), timeout=30)
try:
    with context.wrap_socket(raw, server_hostname="pinned.example") as tls:
        assert hashlib.sha256(tls.getpeercert(True)).hexdigest() == pin
        for said in (b"one", b"two"):
            tls.sendall(said)
            print(tls.recv(100).decode())
        pathlib.Path(sign).touch()
        print(tls.recv(1) or "closed")
except (OSError, AssertionError) as error:
    print(getattr(error, "reason", None) or type(error).__name__)
"""


@pytest.fixture(scope="module")
def pin(pod: Pod) -> str:
    """The server's: it says again what it is told."""
    signer, key = LocalSigner.create("example.org", SystemClock()), new_key()
    now = SystemClock().now()
    profile = LeafProfile(
        "spiffe://example.org/guard/mail", Instant(now - 60), Instant(now + 3600), 7, ("pinned.example",)
    )
    chain = signer.certificate(profile, key.public())
    context = server_context(chain, key, signer.bundle())
    context.verify_mode = ssl.CERT_NONE

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = pod.pinned.accept()
                with suppress(OSError), context.wrap_socket(connection, server_side=True) as tls:
                    while data := tls.recv(100):
                        tls.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    return hashlib.sha256(
        ssl.PEM_cert_to_DER_cert(chain.decode().split("-----END")[0] + "-----END CERTIFICATE-----\n")
    ).hexdigest()


def recorded(pod: Pod, **members: str) -> dict[str, Any]:
    def found() -> dict[str, Any] | None:
        lines = [json.loads(line) for line in pod.audit.read_bytes().rpartition(b"\n")[0].splitlines()]
        return next((one for one in reversed(lines) if members.items() <= one.items()), None)

    return wait_for(found, f"a record with {members}", pod.process)


def settled(pod: Pod, outcome: str) -> dict[str, Any]:
    return recorded(pod, event="egress.settled", outcome=outcome)


def speaking(pod: Pod, pin: str, pool: ThreadPoolExecutor) -> Any:
    sign = pod.directory / "agent" / "spoken"
    sign.unlink(missing_ok=True)
    port = pod.pinned.getsockname()[1]
    told = pool.submit(pod.try_python, PINNED, ELSEWHERE, port, pin, sign)
    wait_for(lambda: sign.exists() or told.done(), "it has spoken", pod.process)
    return told


def test_who_pins_a_certificate_speaks_with_its_server_until_nothing_moves(pod, pin):
    with pod.task(COMMENT), ThreadPoolExecutor(1) as pool:
        told = speaking(pod, pin, pool).result(60).split()
    assert told[:2] == ["one", "two"]
    assert told[2] in ("closed", "ConnectionResetError", "SSLEOFError", "UNEXPECTED_EOF_WHILE_READING")
    record = settled(pod, "idle")
    assert record["code"] == "granted"
    assert record["sent"] > 0
    assert record["received"] > 0


def test_it_is_cut_with_its_task(pod, pin):
    with ThreadPoolExecutor(1) as pool:
        with pod.task(COMMENT):
            told = speaking(pod, pin, pool)
        assert told.result(60).split()[:2] == ["one", "two"]
    assert settled(pod, "cut")["code"] == "task_ended"


def test_without_a_task_it_reaches_nobody(pod, pin):
    with nobody_hears(pod), ThreadPoolExecutor(1) as pool:
        assert speaking(pod, pin, pool).result(60) == "TLSV1_ALERT_ACCESS_DENIED"


GREETED = """
import pathlib, socket, sys
host, port, sign = sys.argv[1:]
try:
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        print(connection.recv(100).decode())
        connection.sendall(b"hello")
        print(connection.recv(100).decode())
        pathlib.Path(sign).touch()
        print(connection.recv(100).decode() or "closed")
except OSError as error:
    print(type(error).__name__)
"""


@pytest.fixture(scope="module")
def greeted(pod: Pod) -> list[str]:
    """What clients have said to the server that speaks first."""
    said: list[str] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = pod.greeter.accept()
                with suppress(OSError), connection:
                    connection.sendall(b"220 ready")
                    while data := connection.recv(100):
                        said.append(data.decode())
                        connection.sendall(b"250 " + data)

    threading.Thread(target=serve, daemon=True).start()
    return said


def greet(pod: Pod, host: str, port: int) -> list[str]:
    return pod.try_python(GREETED, host, port, pod.directory / "agent" / "greeted").split("\n")


def test_a_server_that_speaks_first_is_reached_in_a_task_and_no_longer(pod, greeted):
    port = pod.greeter.getsockname()[1]
    assert greet(pod, "greeter.example", port) == ["ConnectionResetError"]
    assert recorded(pod, event="egress.decided", mode="opaque")["code"] == "no_task"
    assert greeted == []
    sign = pod.directory / "agent" / "greeted"
    with ThreadPoolExecutor(1) as pool:
        with pod.task(COMMENT):
            told = pool.submit(greet, pod, "greeter.example", port)
            wait_for(lambda: sign.exists() or told.done(), "it was greeted", pod.process)
            # Another port of the same address is another server.
            assert greet(pod, UPSTREAM, 9)[0] != "220 ready"
        assert told.result(60) == ["220 ready", "250 hello", "ConnectionResetError"]
    assert greeted == ["hello"]
    assert settled(pod, "cut")["server"] == f"greeter.example:{port}"
