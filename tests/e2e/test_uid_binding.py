"""``task_binding: uid``: two tasks under two uids never mix; nobody else has either."""

import asyncio
import itertools
import json
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from taskgrant.client import TaskgrantClient
from taskgrant.errors import Refused
from tests.e2e.office import MAIL, READ, Office
from tests.e2e.processes import installation, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run processes as other users")

READER, MAILER, IDLE, STRANGER = 20_001, 20_002, 20_003, 20_009
#: Calls without a session are of one conversation of their task, in which no id may be used twice.
_ids = itertools.count(1)
READS = ("read_ticket", {"number": 7})
MAILS = ("send_mail", {"to": "alice@example.org", "subject": "hello"})


@pytest.fixture(scope="module")
def office(opa_binary: Path) -> Iterator[Office]:
    directory = Path(tempfile.mkdtemp(prefix="taskgrant-uids-"))
    try:
        with installation(directory, opa_binary) as place:
            place.sections = {
                "agent": {"own_orchestrator": False, "uid_range": [READER, IDLE]},
                "authority": {"task_binding": "uid"},
            }
            yield Office.start(place)
    finally:
        shutil.rmtree(directory)


@pytest.fixture
async def client(office: Office) -> AsyncIterator[TaskgrantClient]:
    async with TaskgrantClient(office.place.control) as client:
        yield client


def _request(office: Office, call: tuple[str, dict[str, Any]], *headers: str) -> bytes:
    tool, arguments = call
    params = {"name": tool, "arguments": arguments}
    body = json.dumps({"jsonrpc": "2.0", "id": next(_ids), "method": "tools/call", "params": params})
    url = urlsplit(office.endpoint)
    lines = [
        f"POST {url.path} HTTP/1.1", f"Host: {url.netloc}", "Content-Type: application/json",
        "Accept: application/json, text/event-stream", "MCP-Protocol-Version: 2025-11-25",
        f"Content-Length: {len(body)}", *headers,
    ]  # fmt: skip
    return "\r\n".join([*lines, "", body]).encode()


def _told(answer: str) -> str:
    """``ok``, or the code of the refusal."""
    data = next((line[6:] for line in answer.splitlines() if line.startswith("data: {")), answer)
    message: dict[str, Any] = json.loads(data)
    if "result" not in message:
        return str(message["code"])
    return str(message["result"].get("_meta", {}).get("taskgrant/code", "ok"))


async def asked(office: Office, uid: int, call: tuple[str, dict[str, Any]], *headers: str) -> str:
    """What a process of that uid is told."""
    given = [part for header in headers for part in ("-H", header)]
    body = _request(office, call).partition(b"\r\n\r\n")[2]
    process = await asyncio.create_subprocess_exec(
        "setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups", "--", "curl", "-sS",
        "-H", "Content-Type: application/json", "-H", "Accept: application/json, text/event-stream",
        "-H", "MCP-Protocol-Version: 2025-11-25", *given, "-d", body.decode(), office.endpoint,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    return _told((await process.communicate())[0].decode())


async def test_tasks_of_two_uids_never_mix(office: Office, client: TaskgrantClient) -> None:
    async with (
        client.task("read", [READ], uid=READER) as reading,
        client.task("mail", [MAIL], uid=MAILER) as mailing,
    ):
        before = len(office.place.audit)
        cases = [
            (uid, call, told)
            for uid, call, told in (
                (READER, READS, "ok"),
                (READER, MAILS, "no_grant"),
                (MAILER, MAILS, "ok"),
                (MAILER, READS, "no_grant"),
            )
            for _ in range(3)
        ]
        answers = await asyncio.gather(*(asked(office, uid, call) for uid, call, _ in cases))
        assert answers == [told for _, _, told in cases]

        def on_record() -> list[dict[str, Any]]:
            records = office.place.audit[before:]
            return [each for each in records if each["event"] == "call.decided" and each.get("tool")]

        # A refusal waits for nothing, so its record may come after its answer.
        wait_for(lambda: len(on_record()) >= len(cases), "all are on record")
        decided = on_record()
        assert len(decided) == len(cases)
        for each in decided:
            assert each["task"] == (reading.id if each["uid"] == READER else mailing.id)


async def test_a_tunnel_is_its_uids(office: Office, client: TaskgrantClient) -> None:
    """CONNECT, and the calls inside it."""

    async def tunnelled(uid: int) -> str:
        body = _request(office, READS).partition(b"\r\n\r\n")[2].decode()
        process = await asyncio.create_subprocess_exec(
            "setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups", "--", "curl", "-sS",
            "--proxytunnel", "--proxy", office.place.addresses["proxy"], "-H", "Content-Type: application/json",
            "-H", "Accept: application/json, text/event-stream", "-H", "MCP-Protocol-Version: 2025-11-25",
            "-d", body, "http://office.internal/mcp", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, _ = await process.communicate()
        return _told(out.decode()) if process.returncode == 0 else "no tunnel"

    async with client.task("read", [READ], uid=READER), client.task("mail", [MAIL], uid=MAILER):
        called = office.called("read_ticket")
        answers = await asyncio.gather(*map(tunnelled, (READER, MAILER, IDLE, STRANGER, 0)))
        assert answers == ["ok", "no_grant", "no_task", "no tunnel", "no tunnel"]
        assert office.called("read_ticket") == called + 1

    def strangers() -> bool:
        return {STRANGER, 0} <= {e.get("uid") for e in office.place.audit if e.get("code") == "peer_refused"}

    wait_for(strangers, "those that are nobody's are on record")


async def test_nobody_else_has_a_task(office: Office, client: TaskgrantClient) -> None:
    async with client.task("read", [READ], uid=READER) as task:
        called = office.called("read_ticket")
        assert await asked(office, STRANGER, READS) == "peer_refused"
        assert await asked(office, 0, READS) == "peer_refused"
        assert await asked(office, IDLE, READS) == "no_task"
        # Its handle helps nobody either.
        shown = f"Taskgrant-Task: {task.handle}"
        assert await asked(office, STRANGER, READS, shown) == "peer_refused"
        assert await asked(office, 0, READS, shown) == "peer_refused"
        assert await asked(office, IDLE, READS, shown) == "handle_invalid"
        assert office.called("read_ticket") == called
        assert await asked(office, READER, READS, shown) == "ok"


async def test_a_handle_of_the_other_task_is_final(office: Office, client: TaskgrantClient) -> None:
    async with (
        client.task("read", [READ], uid=READER),
        client.task("mail", [MAIL], uid=MAILER) as mailing,
    ):
        for call in (READS, MAILS):
            told = await asked(office, READER, call, f"Taskgrant-Task: {mailing.handle}")
            assert told == "handle_invalid"


async def test_a_kept_connection_is_its_uids(office: Office, client: TaskgrantClient) -> None:
    """A connection that was opened before the task serves it, and nothing of another's while there is none."""
    url = urlsplit(office.endpoint)
    os.seteuid(READER)  # who makes a socket owns it
    try:
        sock = socket.socket()
    finally:
        os.seteuid(0)
    sock.connect((url.hostname, url.port))
    reader, writer = await asyncio.open_connection(sock=sock)

    async def call() -> str:
        writer.write(_request(office, READS))
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b"chunked" not in head:
            [length] = [int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length")]
            return _told((await reader.readexactly(length)).decode())
        body = b""
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
        return _told(body.decode())

    try:
        async with asyncio.timeout(60), client.task("read too", [READ], uid=MAILER):
            assert await call() == "no_task"
            for _ in range(2):
                async with client.task("read", [READ], uid=READER):
                    assert await call() == "ok"
                assert await call() == "no_task"
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    ("uid", "code"), [(None, "invalid"), (0, "invalid"), (STRANGER, "invalid"), (READER, "conflict")]
)
async def test_who_cannot_have_a_task(
    office: Office, client: TaskgrantClient, uid: int | None, code: str
) -> None:
    async with client.task("read", [READ], uid=READER):
        with pytest.raises(Refused) as refused:
            async with client.task("another", [READ], uid=uid):
                pass
        assert refused.value.code == code


def test_a_uid_with_a_role_stops_the_start(tmp_path: Path, opa_binary: Path) -> None:
    with installation(tmp_path, opa_binary) as place:
        place.servers["office"] = {"protocol": "mcp", "upstream": "https://127.0.0.1:1/mcp"}
        place.sections = {
            "agent": {"own_orchestrator": False, "uids": [READER, MAILER]},
            "authority": {"task_binding": "uid"},
            "control": {"roles": {"orchestrator": [0, MAILER]}},
        }
        process = place.python("-m", "taskgrant.cli.main", "run", str(place.write()))
        assert process.popen.wait(60) == 3
        assert f"the agent's uid {MAILER} has the roles orchestrator" in process.log()
