"""The ways round the sidecar, each tried by the agent: what comes of it, and that nobody outside hears a byte.

The far side counts every packet that is for no tool server. That it does is shown by the same attempts, made as the
sidecar's uid, which may leave.
"""

import json
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.processes import wait_for
from tests.net.pod import SIDECAR_UID, Pod
from tests.net.test_reach import COMMENT, comment

ATTEMPTS = Path(__file__).with_name("attempts.py")
ARRIVES = "taskgrant"
#: What our rules say to who sends: with ECONNREFUSED, an answer, the packet would have got somewhere.
STOPPED = "EPERM"
#: Nobody on this machine takes it.
REFUSED = "ECONNREFUSED"
#: Sockets of a kind that this kernel may not have, or may not give.
NONE = "EPERM|EACCES|EPROTONOSUPPORT|ESOCKTNOSUPPORT|EAFNOSUPPORT|ENOPROTOOPT"
#: No way out, told by the routes before a rule is asked.
NO_ROUTE = "ENETUNREACH|EHOSTUNREACH|EADDRNOTAVAIL"


@contextmanager
def nobody_hears(pod: Pod) -> Iterator[None]:
    before = pod.world.escaped(), pod.received
    yield
    assert (pod.world.escaped(), pod.received) == before


def attempt(pod: Pod, *arguments: object) -> str:
    done = pod.agent(sys.executable, str(ATTEMPTS), *map(str, arguments))
    assert done.status == 0, done.err
    return done.out.strip()


ROWS = {
    # TCP, however it is dialled, arrives at the sidecar.
    "tcp4": ARRIVES,
    "tcp4-high": ARRIVES,
    "tcp6": ARRIVES,
    "tcp-mapped": ARRIVES,
    "tcp-fast-open": ARRIVES,
    "mptcp": f"{ARRIVES}|{NONE}",
    "udp-bound-to-device": STOPPED,
    "dns-bound-to-device": STOPPED,
    "tcp-bound-to-device": "TIMEOUT",
    # Nothing else is taken.
    "udp4": STOPPED,
    "udp6": STOPPED,
    "udp-broadcast": STOPPED,
    "udp-multicast": STOPPED,
    "udp-lite": NONE,
    "sctp": NONE,
    "icmp4": NONE,
    "icmp6": NONE,
    # What is no look-up is not answered by the sidecar's resolver, to which it comes (look-ups: test_dns.py).
    "dns-udp": "sent",
    "dns-tcp": "RemoteDisconnected|TIMEOUT",
    # Below and beside the rules.
    "raw": "EPERM",
    "packet": "EPERM",
    "mark": "EPERM",
    "ip-transparent": "EPERM",
    "rules": "EPERM",
    # As somebody else.
    "setuid": "EPERM",
    "setuid-root": "EPERM",
    "user-namespace-udp": "EPERM|ENOSPC",
    "user-namespace-tcp": f"{ARRIVES}|EPERM|ENOSPC",
    "user-namespace-packet": "EPERM|ENOSPC",
    "user-and-net-namespace": f"{NO_ROUTE}|EPERM|ENOSPC",
    "kill": "EPERM|sees nobody",
    # The sidecar's own ports, dialled: no way round what was dialled, and no loop.
    "own-port4": REFUSED,
    "own-port6": REFUSED,
    "own-port-mapped": REFUSED,
    "own-port-by-address": REFUSED,
    "own-dns-port": REFUSED,
    "gateway": REFUSED,
    "admin": REFUSED,
    # Redirected, and refused for what was dialled.
    "metadata-tcp": "ECONNRESET|RemoteDisconnected",
    "metadata-udp": STOPPED,
}


@pytest.mark.parametrize("name", ROWS)
def test_an_attempt_comes_to_nothing(pod, name):
    with nobody_hears(pod):
        assert re.fullmatch(ROWS[name], attempt(pod, name))


@pytest.mark.parametrize("name", ["tcp4", "tcp6", "udp4", "udp6", "dns-udp"])
def test_what_does_come_out_is_heard(pod, name):
    """The far side would have noticed: the sidecar's uid may leave, and is heard."""
    before = pod.world.escaped()
    pod.inside(sys.executable, str(ATTEMPTS), name, uid=SIDECAR_UID)
    assert pod.world.escaped() > before


@pytest.mark.parametrize("name", ["icmp4", "icmp6"])
def test_who_may_have_a_ping_socket_pings_nobody(pod, name):
    """Most machines give them to everybody."""
    allow = 'old=$(cat $0) && echo "$1" > $0 && echo $old'
    groups = "/proc/sys/net/ipv4/ping_group_range"
    before = pod.inside("sh", "-c", allow, groups, "0 2147483647").out.strip()
    try:
        with nobody_hears(pod):
            assert re.fullmatch(f"{STOPPED}|{REFUSED}", attempt(pod, name))
    finally:
        pod.inside("sh", "-c", allow, groups, before)


def test_a_metadata_address_is_on_record_as_refused(pod):
    attempt(pod, "metadata-tcp")
    record = pod.recorded(dialled="169.254.169.254:80")
    assert record["code"] == "forbidden"
    assert record["listener"] == "transparent"


def test_an_exchange_of_the_sidecar_lets_nobody_in(pod):
    """Its name look-up is still known to the kernel; the agent sends from the same port to the same server."""
    sent = pod.inside(sys.executable, str(ATTEMPTS), "udp-from", "40053", "53", uid=SIDECAR_UID)
    assert sent.out.strip() in ("sent", "ECONNREFUSED")
    with nobody_hears(pod):
        assert attempt(pod, "udp-from", 40053, 53) == STOPPED


@pytest.mark.parametrize("path", ["run/control.sock", "run/opa.sock"])
def test_the_sidecars_sockets_are_closed_to_the_agent(pod, path):
    assert attempt(pod, "unix", pod.directory / path) in ("EACCES", "ENOENT")


def test_the_sidecars_sockets_are_there(pod):
    """So that the refusals above mean something."""
    sockets = {found.name for found in (pod.directory / "run").rglob("*") if found.is_socket()}
    assert "control.sock" in sockets
    assert len(sockets) >= 2
    for found in (pod.directory / "run").rglob("*"):
        if found.is_socket():
            assert attempt(pod, "unix", found) == "EACCES"


SPEAK = """
import socket, sys
sock = socket.create_connection(("192.0.2.1", int(sys.argv[1])), timeout=20)
sock.sendall(bytes.fromhex(sys.argv[2]))
if sys.argv[3:]:
    sock.shutdown(socket.SHUT_WR)
try:
    print(sock.recv(100).hex() or "closed")
except ConnectionError:
    print("reset")
"""


@pytest.mark.parametrize(
    ("port", "said", "code"),
    [
        (22, b"SSH-2.0-OpenSSH_9\r\n", "unsupported"),
        (443, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "unsupported"),
        (5432, b"\x00\x00\x00\x08\x04\xd2\x16\x2f", "unsupported"),
        (81, b"get / HTTP/1.1\r\n\r\n", "unsupported"),
    ],
)
def test_a_protocol_that_is_not_spoken_here_is_refused(pod, port, said, code):
    with nobody_hears(pod):
        assert pod.try_python(SPEAK, port, said.hex()) == "reset"
    assert pod.recorded(dialled=f"192.0.2.1:{port}")["code"] == code


@pytest.mark.parametrize(("said", "code"), [(b"", "unsupported"), (b"GE", "unsupported")])
def test_who_does_not_say_what_it_speaks_is_cut_off(pod, said, code):
    port = 1000 + len(said)
    with nobody_hears(pod):
        assert pod.try_python(SPEAK, port, said.hex()) == "reset"
    assert pod.recorded(dialled=f"192.0.2.1:{port}")["code"] == code


def test_who_leaves_before_it_is_clear_what_it_speaks_is_on_record(pod):
    assert pod.try_python(SPEAK, 1010, b"GE".hex(), "end") == "reset"
    assert pod.recorded(dialled="192.0.2.1:1010")["code"] == "malformed"


DRIBBLE = """
import resource, socket, sys
count, sign = int(sys.argv[1]), sys.argv[2]
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
socks = [socket.create_connection(("192.0.2.1", 1020), timeout=30) for _ in range(count)]
open(sign, "w").close()
over = 0
for byte in b"GET":
    for sock in socks:
        try:
            sock.send(bytes([byte]))
        except ConnectionError:
            pass
for sock in socks:
    try:
        over += sock.recv(1) == b""
    except ConnectionError:
        over += 1
print(over)
"""
MOST_KIB = 96 << 10
MOST_TIMES = 2


def test_a_thousand_that_dribble_are_cut_off_and_harm_nobody(pod):
    sign = pod.directory / "agent" / "dribbles"
    before, calls, escaped = pod.sidecar_kib(), len(pod.desk.calls), pod.world.escaped()
    with pod.task(COMMENT), ThreadPoolExecutor(1) as pool:
        dribbling = pool.submit(pod.try_python, DRIBBLE, 1000, sign)
        wait_for(sign.exists, "a thousand connections stand", pod.process)
        assert comment(pod)[0] == 200
        assert pod.sidecar_kib() - before < MOST_KIB
        assert dribbling.result(60) == "1000"
    assert (len(pod.desk.calls), pod.world.escaped()) == (calls + 1, escaped)


SPEAK_AT_LENGTH = """
import socket, sys
count, dribble = int(sys.argv[1]), sys.argv[2] == "dribble"
hello = bytes.fromhex("1603010200010001fc0303") + bytes(189)
socks = [socket.create_connection(("192.0.2.1", 1021), timeout=30) for _ in range(count)]
for said in [bytes([byte]) for byte in hello] if dribble else [hello]:
    for sock in socks:
        try:
            sock.send(said)
        except ConnectionError:
            pass
over = 0
for sock in socks:
    try:
        over += sock.recv(1) == b""
    except ConnectionError:
        over += 1
print(over)
"""


def test_a_dribble_costs_hardly_more_than_the_same_said_at_once(pod):
    """In the sidecar's time on a processor: it is woken for what it needs next, and not for every byte."""
    stat = Path(f"/proc/{pod.sidecar_pid()}/stat")

    def spent(how: str) -> int:
        before = sum(map(int, stat.read_text().rpartition(")")[2].split()[11:13]))
        with nobody_hears(pod):
            assert pod.try_python(SPEAK_AT_LENGTH, 400, how) == "400"
        return sum(map(int, stat.read_text().rpartition(")")[2].split()[11:13])) - before

    spent("at once")  # what is done once is done
    at_once, dribbled = spent("at once"), spent("dribble")
    assert dribbled <= MOST_TIMES * at_once, (at_once, dribbled)


MANY = """
import collections, http.client
seen = collections.Counter()
for port in (2001, 2002):
    for _ in range(1500):
        one = http.client.HTTPConnection("192.0.2.1", port, timeout=30)
        try:
            one.request("GET", "/", headers={"host": f"nobody.invalid:{port}"})
            seen[one.getresponse().headers["server"]] += 1
        except OSError as error:
            seen[type(error).__name__] += 1
        finally:
            one.close()
print(dict(seen))
"""


def test_a_source_port_that_is_used_again_for_another_address_is_still_the_agents(pod):
    """The kernel then gives the redirected connection another one, at which there is no socket of the client's."""
    assert pod.try_python(MANY) == "{'taskgrant': 3000}"


def test_the_check_from_inside_holds_with_the_rules_and_not_without(pod):
    config = str(pod.directory / "taskgrant.yaml")
    check = [sys.executable, "-m", "taskgrant.cli.main"]

    def fails() -> list[str]:
        done = pod.inside(*check, "net", "check", config)
        assert done.status in (0, 5), done.err
        lost = [line for line in done.out.splitlines() if line.startswith("FAIL")]
        assert bool(lost) == (done.status == 5)
        return lost

    assert fails() == []
    assert pod.inside(*check, "net", "remove").status == 0
    try:
        lost = "\n".join(fails())
        for expected in (
            "TCP over IPv4",
            "TCP over IPv6",
            "name look-up by UDP over IPv4",
            "name look-up by TCP over IPv4",
            "name look-up by UDP over IPv6",
            "UDP over IPv4, port 443",
            "UDP over IPv6, port 443",
            "own port",
            "admin port",
        ):
            assert expected in lost
    finally:
        for _ in range(2):  # once is as good as twice
            assert pod.inside(*check, "net", "apply", config).status == 0
    assert fails() == []


ASK_UNTIL = """
import http.client, json, os, sys
statuses = {}
while not os.path.exists(sys.argv[2]):
    one = http.client.HTTPConnection("desk.internal", timeout=20)
    for _ in range(3):
        headers = {"content-type": "application/json"}
        one.request("POST", "/tickets/7/comments", json.dumps({"text": "hello"}), headers)
        answer = one.getresponse()
        answer.read()
        statuses[answer.status] = statuses.get(answer.status, 0) + 1
    one.close()
    open(sys.argv[1], "w").close()
print(json.dumps([sorted(statuses), sum(statuses.values())]))
"""


def test_rules_that_are_applied_again_under_load_let_nobody_out_and_cut_nobody_off(pod):
    signs = pod.directory / "agent"
    running, enough = signs / "asking", signs / "enough"
    config = str(pod.directory / "taskgrant.yaml")
    apply = [sys.executable, "-m", "taskgrant.cli.main", "net", "apply", config]
    escaped = pod.world.escaped()
    with pod.task(COMMENT), ThreadPoolExecutor(1) as pool:
        load = pool.submit(pod.try_python, ASK_UNTIL, running, enough)
        wait_for(running.exists, "the load runs", pod.process)
        try:
            for _ in range(3):
                assert pod.inside(*apply).status == 0
                assert attempt(pod, "udp4") == STOPPED
        finally:
            enough.touch()
        statuses, count = json.loads(load.result(60))
    assert statuses == [200]
    assert count >= 3
    assert pod.world.escaped() == escaped


RECEIVE = """
import pathlib, socket, sys
sys.path.insert(0, sys.argv[1])
import attempts
with socket.socket(socket.AF_UNIX) as listening:
    pathlib.Path(sys.argv[2]).unlink(missing_ok=True)
    listening.bind(sys.argv[2])
    listening.listen()
    with listening.accept()[0] as other:
        _, [given], _, _ = socket.recv_fds(other, 1, 1)
with socket.socket(fileno=given) as sock:
    sock.settimeout(attempts.SECONDS)
    try:
        sock.connect((attempts.ELSEWHERE, int(sys.argv[3])))
        print(attempts.ask(sock) if sock.type == socket.SOCK_STREAM else sock.send(b"out") and "sent")
    except OSError as error:
        print(attempts.errno.errorcode.get(error.errno, type(error).__name__))
"""
HAND_OVER = """
import os, socket, sys
os.seteuid(int(sys.argv[2]))
sock = socket.socket(socket.AF_INET, getattr(socket, sys.argv[3]))
os.seteuid(0)
with socket.socket(socket.AF_UNIX) as other:
    other.connect(sys.argv[1])
    socket.send_fds(other, [b"x"], [sock.fileno()])
"""


def handed(pod: Pod, maker: int, kind: str, port: int) -> str:
    """What the agent gets with a socket of another uid's making, in the agent's network namespace."""
    path = pod.directory / "agent" / "give"
    path.unlink(missing_ok=True)
    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(pod.try_python, RECEIVE, ATTEMPTS.parent, path, port)
        wait_for(path.exists, "the agent waits for a descriptor", pod.process)
        give = [sys.executable, "-c", HAND_OVER, str(path), str(maker), kind]
        wait_for(lambda: pod.inside(*give).status == 0, "a socket is handed over", pod.process)
        return told.result(60)


@pytest.mark.parametrize("maker", [0, 65534])
def test_a_socket_that_somebody_else_has_made_is_stopped_all_the_same(pod, maker):
    """Whoever made it is not the sidecar: the rules say the same to it, and the sidecar does not know it."""
    with nobody_hears(pod):
        assert handed(pod, maker, "SOCK_DGRAM", 443) == STOPPED
        assert handed(pod, maker, "SOCK_STREAM", 80) == "ECONNRESET"
    assert pod.recorded(code="peer_refused")["uid"] == maker


def test_a_socket_of_the_sidecars_would_get_out(pod):
    """Which is why nothing of ours hands any out, and why nobody else may have its uid (docs/threat-model.md)."""
    before = pod.world.escaped()
    assert handed(pod, SIDECAR_UID, "SOCK_DGRAM", 443) == "sent"
    assert pod.world.escaped() > before


def test_the_agent_was_given_nothing_at_its_start(pod):
    """Of what ``run-agent`` and the sidecar have open: the standard streams, and what it has opened itself."""
    inherited = json.loads((pod.directory / "agent" / "inherited").read_text())
    assert set(inherited) == {"0", "1", "2"}
    assert not [opened for opened in inherited.values() if "socket:" in opened]


def test_nobody_can_be_asked_for_a_descriptor(pod):
    """Neither by name (abstract sockets are of the network namespace, which the agent shares), nor by process."""
    names = [line.split()[-1] for line in pod.inside("cat", "/proc/net/unix").out.splitlines()[1:]]
    assert [name for name in names if name.startswith("@")] == []
    assert attempt(pod, "take-descriptors") in ("EPERM", "sees nobody")


KEEP_ASKING = """
import http.client, json, sys, time
seen, failed = [], 0
deadline = time.monotonic() + 40
while failed < 20 and time.monotonic() < deadline:
    try:
        one = http.client.HTTPConnection("192.0.2.1", timeout=10)  # by name it would wait for the sidecar
        headers = {"host": "desk.internal", "content-type": "application/json"}
        one.request("POST", "/tickets/7/comments", json.dumps({"text": "hello"}), headers)
        seen.append(one.getresponse().status)
        if seen == [200]:
            open(sys.argv[1], "w").close()
    except (OSError, http.client.HTTPException):
        failed += 1
        seen.append("none")
print(json.dumps(sorted(set(map(str, seen)))))
"""


def test_a_sidecar_that_is_killed_under_load_leaves_no_way_out(pod):
    running = pod.directory / "agent" / "running"
    escaped = pod.world.escaped()
    with pod.task(COMMENT), ThreadPoolExecutor(1) as pool:
        load = pool.submit(pod.try_python, KEEP_ASKING, running)
        wait_for(running.exists, "the load runs", pod.process)
        killed = pod.kill_sidecar()
        assert load.result(60) == '["200", "none"]'
        assert re.fullmatch(f"{ARRIVES}|{REFUSED}", attempt(pod, "tcp4"))
        assert attempt(pod, "udp4") == STOPPED
        pod.wait_for_another(killed)
        assert pod.world.escaped() == escaped
        pod.enrol()
        assert comment(pod)[0] == 200
    assert comment(pod)[1]["code"] in ("no_task", "task_ended")
