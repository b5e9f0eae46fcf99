"""Clients that know nothing of a sidecar reach what their task was granted, and nothing else."""

import base64
import hashlib
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.processes import wait_for
from tests.e2e.recorder import Request, answer
from tests.net.pod import AGENT_UID, Pod, tool_call
from tests.net.world import ELSEWHERE, ELSEWHERE6

COMMENT = {
    "server": "desk",
    "tools": ["comment"],
    "arguments": {
        "properties": {"id": {"type": "string"}, "text": {"type": "string", "maxLength": 20}},
        "required": ["id", "text"],
    },
}
NOTE = {"server": "tools", "tools": ["note"], "arguments": {"properties": {"text": {"type": "string"}}}}
URL = "http://desk.internal/tickets/7/comments"
URLLIB = """
import json, sys, urllib.error, urllib.request
url, body = sys.argv[1:]
request = urllib.request.Request(url, body.encode(), {"content-type": "application/json"})
try:
    answer = urllib.request.urlopen(request, timeout=20)
except urllib.error.HTTPError as refused:
    answer = refused
print(json.dumps([answer.status, json.loads(answer.read())]))
"""


def curl(pod: Pod, *arguments: str) -> tuple[int, dict]:
    """The status and the body, which is JSON in every case."""
    done = pod.agent("curl", "-sS", "--max-time", "20", "--write-out", "\n%{http_code}", *arguments)
    assert done.status == 0, done
    body, _, status = done.out.rpartition("\n")
    return int(status), json.loads(body)


def comment(pod: Pod, text: str = "hello", *more: str, url: str = URL) -> tuple[int, dict]:
    given = ["--header", "content-type: application/json", "--data", json.dumps({"text": text})]
    return curl(pod, *given, *more, url)


def test_curl_reaches_a_granted_operation_and_nothing_else(pod):
    with pod.task(COMMENT):
        status, _ = comment(pod)
        assert status == 200
        assert pod.desk.calls[-1].line.startswith("POST /api/tickets/7/comments ")
        record = pod.recorded(listener="transparent", code="granted")
        assert (record["dialled"], record["uid"], record["tool"]) == ("[2001:db8::1]:80", 10001, "comment")
        before = pod.received
        assert comment(pod, "longer than twenty characters")[1]["code"] == "arguments_refused"
        assert curl(pod, "http://desk.internal/tickets")[1]["code"] == "unknown_operation"
        _, answer = curl(pod, *tool_call("note", {"text": "x"}), "http://tools.internal/mcp")
        assert "no_grant" in json.dumps(answer)
    assert comment(pod)[1]["code"] in ("no_task", "task_ended")
    assert pod.received == before


@pytest.mark.parametrize("spoken", ["--http1.1", "--http2-prior-knowledge"])
def test_curl_calls_a_granted_tool_and_no_other(pod, spoken):
    with pod.task(NOTE):
        _, answer = curl(pod, spoken, *tool_call("note", {"text": "x"}), "http://tools.internal/mcp")
        assert answer["result"]["content"] == [{"type": "text", "text": "done"}]
        before = pod.received
        _, answer = curl(pod, spoken, *tool_call("other", {"text": "x"}), "http://tools.internal/mcp")
        assert "no_grant" in json.dumps(answer)
        assert pod.received == before


def test_urllib_reaches_a_granted_operation_and_nothing_else(pod):
    with pod.task(COMMENT):
        assert json.loads(pod.try_python(URLLIB, URL, '{"text": "hello"}'))[0] == 200
        before = pod.received
        assert json.loads(pod.try_python(URLLIB, URL, '{"text": 7}'))[1]["code"] == "arguments_refused"
        assert json.loads(pod.try_python(URLLIB, f"http://{ELSEWHERE}/", "{}"))[1]["code"] == "unknown_server"
        assert pod.received == before


HTTPS = "https://desk.internal/tickets/7/comments"


def test_https_is_reached_with_nothing_but_what_the_environment_says(pod):
    """curl and Python trust the sidecar's CA by the variables that the agent was started with."""
    with pod.task(COMMENT):
        assert comment(pod, url=HTTPS)[0] == 200
        assert pod.recorded(code="granted", dialled="[2001:db8::1]:443")["listener"] == "transparent"
        assert json.loads(pod.try_python(URLLIB, HTTPS, '{"text": "hello"}'))[0] == 200
        before = pod.received
        assert comment(pod, "longer than twenty characters", url=HTTPS)[1]["code"] == "arguments_refused"
        assert json.loads(pod.try_python(URLLIB, HTTPS, '{"text": 7}'))[1]["code"] == "arguments_refused"
    assert comment(pod, url=HTTPS)[1]["code"] in ("no_task", "task_ended")
    assert pod.received == before


NODE = """
const [url, body] = process.argv.slice(1);
fetch(url, {method: "POST", headers: {"content-type": "application/json"}, body})
  .then(async answer => console.log(JSON.stringify([answer.status, await answer.json()])));
"""


@pytest.mark.parametrize("url", [URL, HTTPS])
def test_fetch_of_node_reaches_a_granted_operation_and_nothing_else(pod, url):
    with pod.task(COMMENT):
        assert json.loads(pod.agent("node", "-e", NODE, url, '{"text": "hello"}').out)[0] == 200
        before = pod.received
        answer = json.loads(pod.agent("node", "-e", NODE, url, '{"text": 7}').out)[1]
        assert answer["code"] == "arguments_refused"
        assert pod.received == before


def test_https_to_anybody_else_gets_no_certificate(pod):
    before = pod.received
    resolved = ["--resolve", f"elsewhere.example:443:{ELSEWHERE}"]
    done = pod.agent("curl", "-sS", "--insecure", "--max-time", "20", *resolved, "https://elsewhere.example/")
    assert done.status == 35
    assert pod.recorded(dialled="elsewhere.example:443")["code"] == "unknown_server"
    assert pod.received == before


def test_the_key_of_the_ca_is_the_sidecars_alone(pod):
    assert pod.agent("ls", str(pod.directory / "ca")).status != 0
    assert pod.agent("cat", f"{pod.directory}/trust/bundle.pem").status == 0
    assert pod.agent("sh", "-c", f"echo > {pod.directory}/trust/bundle.pem").status != 0
    assert list((pod.directory / "ca").iterdir()) == []  # it is on a tmpfs of the sidecar's namespace


def test_the_name_decides_and_not_the_address(pod):
    """Whatever address the agent's own resolver gives it, over either family."""
    with pod.task(COMMENT):
        for address in ("198.51.100.1", f"[{ELSEWHERE6}]"):
            assert comment(pod, "hello", "--resolve", f"desk.internal:80:{address}")[0] == 200
        assert comment(pod, "hello", url="http://desk.internal:8080/tickets/7/comments")[0] == 200


def test_host_and_what_was_dialled_agree(pod):
    before = pod.received
    with pod.task(COMMENT):
        for host in ("desk.internal", "198.51.100.1:81", "198.51.100.1:8080", "", "desk.internal:99999"):
            status, answer = comment(
                pod, "x", "--header", f"Host: {host}", url=f"http://{ELSEWHERE}:8080/tickets/7/comments"
            )
            assert (status, answer["code"]) == (400, "malformed"), host
    assert pod.received == before


def test_one_kept_connection_is_decided_request_by_request(pod):
    with pod.task(COMMENT):
        script = """
import http.client, json
one = http.client.HTTPConnection("desk.internal", timeout=20)
for text in ("hello", 7, "hello"):
    one.request("POST", "/tickets/7/comments", json.dumps({"text": text}), {"content-type": "application/json"})
    answer = one.getresponse()
    print(answer.status, one.sock.getsockname()[1])
    answer.read()
"""
        lines = [line.split() for line in pod.try_python(script).splitlines()]
    assert [status for status, _ in lines] == ["200", "403", "200"]
    assert len({port for _, port in lines}) == 1


KEPT = """
import http.client, json, os, requests, sys, time
scheme, sign, over = sys.argv[1:]
kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
asked = "/tickets/7/comments", json.dumps({"text": "hello"}), {"content-type": "application/json"}
session = requests.Session()
def by_pool():
    path, body, headers = asked
    print(session.post(f"{scheme}://desk.internal{path}", data=body, headers=headers, timeout=20).status_code)
one = kind("desk.internal", timeout=20)
one.request("POST", *asked)
print(one.getresponse().read() and "answered")
by_pool()
open(sign, "w").close()
print(one.sock.recv(1))
while not os.path.exists(over):
    time.sleep(0.01)
by_pool()
"""


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_kept_connection_ends_with_its_task(pod, scheme):
    """The client sees its end at once; a pool of connections opens another for the next task."""
    asked, over = (pod.directory / "agent" / f"{scheme}-{each}" for each in ("asked", "over"))
    with ThreadPoolExecutor(1) as pool:
        with pod.task(COMMENT):
            keeping = pool.submit(pod.try_python, KEPT, scheme, asked, over)
            wait_for(asked.exists, "a connection is kept", pod.process)
        with pod.task(COMMENT):
            over.touch()
            assert keeping.result(60).split() == ["answered", "200", "b''", "200"]


MCP = """
import asyncio, os, pathlib, sys
from mcp import Client

async def main(url, signs):
    async with Client(url) as client:
        for number in range(3):
            result = await client.call_tool("note", {"text": "x"})
            print(result.content[0].text if not result.is_error else "refused")
            pathlib.Path(signs, f"called-{number}").touch()
            while number < 2 and not os.path.exists(f"{signs}/go-on-{number}"):
                await asyncio.sleep(0.01)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_client_of_mcp_lives_through_the_end_of_its_task(pod, scheme):
    """Its connections end with the task, its session does not: the next task goes on with it."""
    signs = pod.directory / "agent" / f"mcp-{scheme}"
    signs.mkdir()
    os.chown(signs, AGENT_UID, AGENT_UID)
    with ThreadPoolExecutor(1) as pool:
        with pod.task(NOTE):
            living = pool.submit(pod.try_python, MCP, f"{scheme}://tools.internal/mcp", signs)
            wait_for((signs / "called-0").exists, "it has called", pod.process)
        (signs / "go-on-0").touch()
        wait_for((signs / "called-1").exists, "it has called without a task", pod.process)
        with pod.task(NOTE):
            (signs / "go-on-1").touch()
            assert living.result(60).split() == ["done", "refused", "done"]


RAW = """
import re, socket, sys
sock = socket.create_connection(("desk.internal", 80), timeout=20)
sock.sendall(bytes.fromhex(sys.argv[1]))
answer = b""
try:
    while data := sock.recv(65536):
        answer += data
        if answer.count(b"HTTP/1.1 ") == int(sys.argv[2]) and answer.endswith(b"}"):
            break
except ConnectionError:
    pass
print(re.findall("HTTP/1.1 ([0-9]+) ", answer.decode()))
"""


def request(body: str, *headers: str) -> bytes:
    lines = [
        "POST /tickets/7/comments HTTP/1.1",
        "Host: desk.internal",
        "Content-Type: application/json",
        *headers,
    ]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", body]).encode()


def test_requests_that_are_sent_in_one_go_are_decided_one_by_one(pod):
    with pod.task(COMMENT):
        before = len(pod.desk.calls)
        sent = b"".join(request(body) for body in ('{"text": "first"}', '{"text": 7}', '{"text": "third"}'))
        assert pod.try_python(RAW, sent.hex(), 3) == "['200', '403', '200']"
        assert [call.message["text"] for call in pod.desk.calls[before:]] == ["first", "third"]


@pytest.mark.parametrize(
    "header",
    [
        "Upgrade: websocket\r\nConnection: Upgrade",
        "Transfer-Encoding: chunked",
        "Transfer_Encoding: chunked",
        "Host: tools.internal",
    ],
)
def test_what_hops_would_read_differently_reaches_nobody(pod, header):
    """With what would be taken for a second request after it."""
    with pod.task(COMMENT):
        before = pod.received
        sent = request('{"text": "hello"}', header) + request('{"text": "smuggled"}')
        codes = json.loads(pod.try_python(RAW, sent.hex(), 1).replace("'", '"'))
        assert codes in (["400"], ["501"], [])  # none, when the rest of what was sent resets the connection
        assert pod.received == before


def test_the_same_port_speaks_as_a_proxy(pod):
    """For clients that insist on one: wherever they believe it to be."""
    with pod.task(COMMENT):
        assert comment(pod, "hello", "--proxy", f"http://{ELSEWHERE}:3128")[0] == 200


def test_the_agent_has_nothing_to_work_with(pod):
    status = pod.agent("cat", "/proc/self/status").out
    for line in (
        "CapPrm:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Uid:\t10001\t10001\t10001",
    ):
        assert line in status
    environment = pod.agent("env").out.lower()
    assert "_proxy=" not in environment
    assert "taskgrant_" not in environment
    assert pod.agent(sys.executable, "-c", "import os; os.open('/dev/tty', os.O_RDWR)").status != 0


FEED = {"server": "desk", "tools": ["feed"]}
WEBSOCKET = """
import os, pathlib, socket, ssl, struct, sys
scheme, bundle, sign = sys.argv[1:]
connection = socket.create_connection(("desk.internal", 443 if scheme == "https" else 80), timeout=30)
if scheme == "https":
    connection = ssl.create_default_context(cafile=bundle).wrap_socket(connection, server_hostname="desk.internal")
connection.sendall(
    b"GET /feed HTTP/1.1\\r\\nhost: desk.internal\\r\\nconnection: upgrade\\r\\nupgrade: websocket\\r\\n"
    b"sec-websocket-version: 13\\r\\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\\r\\n\\r\\n"
)
answer = connection.makefile("rb")
print(answer.readline().split()[1].decode())
while answer.readline().strip():
    pass
pathlib.Path(sign).touch()
kind, length = answer.read(2)
print(kind & 15, struct.unpack(">H", answer.read(length)[:2])[0])
"""


def shake_hands(request: Request) -> bytes | None:
    """As a server of WebSocket does (RFC 6455, section 4.2.2)."""
    key = request.headers.get("sec-websocket-key")
    if key is None:
        return answer(request)
    digest = hashlib.sha1(
        f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode(), usedforsecurity=False
    ).digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-accept: %b\r\n\r\n" % base64.b64encode(digest)
    )


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_websocket_that_was_granted_opens_and_ends_with_its_task(pod, scheme, monkeypatch):
    monkeypatch.setattr(pod.desk, "answer", shake_hands)
    sign = pod.directory / "agent" / f"shaken-{scheme}"
    bundle = pod.directory / "trust" / "bundle.pem"
    with ThreadPoolExecutor(1) as pool:
        with pod.task(FEED):
            told = pool.submit(pod.try_python, WEBSOCKET, scheme, bundle, sign)
            wait_for(lambda: sign.exists() or told.done(), "it is open", pod.process)
        assert told.result(60).split("\n") == ["101", "8 1008"]
    assert pod.desk.calls[-1].line.startswith("GET /api/feed ")
