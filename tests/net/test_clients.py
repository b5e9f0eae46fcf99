"""Clients of many kinds, each as it comes, with nothing but the variables that the agent was started with.

Each is asked, in one process: for what its task was granted, over http and https; for what it was not; and for somebody
whom the catalogue does not have. (curl, urllib and Node: test_reach.py.)
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.recorder import Request
from tests.net.pod import Pod
from tests.net.test_bypass import nobody_hears
from tests.net.test_reach import COMMENT, HTTPS, URL
from tests.net.world import ELSEWHERE

CLIENTS = Path(__file__).with_name("clients")

_PYTHON = """
import json, sys
{prepare}
for url, body in zip(sys.argv[1::2], sys.argv[2::2]):
    try:
        print(json.dumps({post}))
    except {errors} as error:
        print("null")
"""
_JSON = "{'content-type': 'application/json'}"
REQUESTS = _PYTHON.format(
    prepare=f"""import requests
session = requests.Session()
def post(url, body):
    answer = session.post(url, data=body, headers={_JSON}, timeout=20)
    return [answer.status_code, answer.text]""",
    post="post(url, body)",
    errors="requests.RequestException",
)
HTTPX = _PYTHON.format(
    prepare=f"""import httpx2
client = httpx2.Client(timeout=20)
def post(url, body):
    answer = client.post(url, content=body, headers={_JSON})
    return [answer.status_code, answer.text]""",
    post="post(url, body)",
    errors="httpx2.HTTPError",
)
AIOHTTP = f"""
import aiohttp, asyncio, json, sys
async def main():
    async with aiohttp.ClientSession() as session:
        for url, body in zip(sys.argv[1::2], sys.argv[2::2]):
            try:
                async with session.post(url, data=body, headers={_JSON}) as answer:
                    print(json.dumps([answer.status, await answer.text()]))
            except aiohttp.ClientError:
                print("null")
asyncio.run(main())
"""


def go_client() -> Path:
    """Built once, and again when its source changes."""
    source = [CLIENTS / name for name in ("go.mod", "main.go")]
    digest = hashlib.sha256(b"".join(each.read_bytes() for each in source)).hexdigest()[:16]
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = Path(os.environ.get("TASKGRANT_CACHE") or home / "taskgrant")
    built = cache / f"test-client-{digest}" / "client"
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        draft = built.with_suffix(f".{os.getpid()}")
        command = ["go", "build", "-trimpath", "-o", str(draft), "."]
        subprocess.run(
            command, cwd=CLIENTS, env={**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}, check=True
        )
        draft.replace(built)
    return built


def command(pod: Pod, name: str) -> list[str]:
    match name:
        case "go":
            there = pod.driver.parent / "client"
            shutil.copy(go_client(), there)
            return [str(there)]
        case "java":
            return ["java", str(CLIENTS / "Client.java")]
        case _:
            return [sys.executable, "-c", {"requests": REQUESTS, "httpx": HTTPX, "aiohttp": AIOHTTP}[name]]


ASKED = [
    (URL, '{"text": "hello"}', 200, None),
    (HTTPS, '{"text": "hello"}', 200, None),
    (HTTPS, '{"text": 7}', 403, "arguments_refused"),
    (URL, '{"text": 7}', 403, "arguments_refused"),
    (f"http://{ELSEWHERE}/tickets/7/comments", '{"text": "hello"}', 404, "unknown_server"),
    (f"https://{ELSEWHERE}/tickets/7/comments", '{"text": "hello"}', None, None),  # no name, no certificate
    ("https://elsewhere.example/", "{}", None, None),  # no address
]


@pytest.mark.parametrize("name", ["requests", "httpx", "aiohttp", "go", "java"])
def test_an_unmodified_client_reaches_what_is_granted_and_nothing_else(pod, name):
    asked = [part for url, body, _, _ in ASKED for part in (url, body)]
    with pod.task(COMMENT):
        before, escaped = len(pod.desk.calls), pod.world.escaped()
        done = pod.agent(*command(pod, name), *asked)
        assert done.status == 0, done.err
        answers = [json.loads(line) for line in done.out.splitlines()]
        assert len(pod.desk.calls) == before + 2, done
        assert pod.world.escaped() == escaped
    for answer, (url, _, status, code) in zip(answers, ASKED, strict=True):
        assert (answer and answer[0]) == status, (url, done.err)
        if code is not None:
            assert json.loads(answer[1])["code"] == code


COMMIT = "5ca1ab1e" * 5


def pkt(line: bytes) -> bytes:
    return b"%04x" % (len(line) + 4) + line


def advertised(request: Request) -> bytes:
    """What a server of git's smart protocol says first (gitprotocol-http): one branch."""
    refs = pkt(b"# service=git-upload-pack\n") + b"0000"
    refs += pkt(COMMIT.encode() + b" refs/heads/main\0agent=test\n") + b"0000"
    head = "content-type: application/x-git-upload-pack-advertisement\r\ncache-control: no-cache"
    return f"HTTP/1.1 200 OK\r\n{head}\r\ncontent-length: {len(refs)}\r\n\r\n".encode() + refs


def test_git_reads_a_repository_that_is_granted_and_no_other(pod):
    names = {
        "properties": {"name": {"const": "granted"}, "service": {"type": "string"}},
        "required": ["name"],
    }
    plain, pod.desk.answer = pod.desk.answer, advertised
    try:
        with pod.task({"server": "desk", "tools": ["refs"], "arguments": names}):
            done = pod.agent("git", "ls-remote", "https://desk.internal/repositories/granted")
            assert (done.status, done.out) == (0, f"{COMMIT}\trefs/heads/main\n"), done.err
            with nobody_hears(pod):
                for refused in ("https://desk.internal/repositories/other", "https://elsewhere.example/x"):
                    done = pod.agent("git", "ls-remote", refused)
                    assert done.status == 128, done
    finally:
        pod.desk.answer = plain
