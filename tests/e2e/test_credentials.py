"""Credentials are just in time, per task and audience, short, never on disk, and of no use to anybody else."""

import asyncio
import base64
import json
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from taskgrant.client import TaskgrantClient
from taskgrant.errors import Refused
from taskgrant.identity.contexts import client_context
from taskgrant.identity.csr import new_key
from tests.e2e.office import EXPORT, READ, SERVER, Office
from tests.e2e.processes import TRUST_DOMAIN
from tests.e2e.tools import HELLO, PLAIN, Copy, World, call, echo, get, grant, send, until, whole, world
from tests.wire.support import SOON


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, opa_binary: Path) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("credentials"), opa_binary) as made:
        yield made


@pytest.fixture
async def client(running: World) -> AsyncIterator[TaskgrantClient]:
    async with running.orchestrator as client:
        yield client


def issued(running: World, task: str) -> list[dict[str, Any]]:
    records = running.place.audit
    return [each for each in records if each["event"] == "credential.issued" and each["task"] == task]


async def serial(running: World, handle: str | None, path: str = "/read/7") -> str:
    """Of the certificate that the tool is shown for a call."""
    answered = await running.answer(get(path), handle)
    assert answered.code == "allowed", answered
    return str(json.loads(answered.body)["serial"])


# --- when they are made ----------------------------------------------------------------------------------------------


async def test_made_at_the_first_allowed_call_and_then_shared(
    running: World, client: TaskgrantClient
) -> None:
    async with running.tool(PLAIN, echo) as tool, client.task("just in time", [grant(PLAIN, "read")]) as task:
        assert (await running.answer(get("/other/1"), task.handle)).code == "no_grant"
        assert issued(running, task.id) == []  # neither at the start, nor for a call that is refused
        shown = await asyncio.gather(*(serial(running, task.handle) for _ in range(10)))
        assert len(set(shown)) == 1
        assert [record["serial"] for record in issued(running, task.id)] == [shown[0]]
        before = tool.connections
        assert await serial(running, task.handle) == shown[0]
        assert tool.connections == before  # one pool, and it is used again


async def test_one_per_task_and_audience(running: World, client: TaskgrantClient) -> None:
    """No connection of one is ever used for another."""

    async def modern(peer: Any, tool: Any) -> None:
        while True:
            await tool.take(peer)
            answer = {"jsonrpc": "2.0", "id": 1, "result": {"content": []}}
            await peer.send(whole(json.dumps(answer).encode(), "Content-Type: application/json"))

    grants = [grant(PLAIN, "read"), grant("modern", "work")]
    async with (
        running.tool(PLAIN, echo) as plain,
        running.tool("modern", modern) as other,
        client.task("one", grants) as one,
        client.task("two", grants) as two,
    ):
        for task in (one, two, one, two):
            await serial(running, task.handle)
            assert (await running.answer(call(), task.handle)).code == "allowed"
        assert plain.connections == other.connections == 2
        assert plain.serials == plain.serials[:2] * 2
        assert len({*plain.serials, *other.serials}) == 4


async def test_remade_when_the_grants_change(running: World, client: TaskgrantClient) -> None:
    async with running.tool(PLAIN, echo), client.task("changes", [grant(PLAIN, "read")]) as task:
        first = await serial(running, task.handle)
        [more] = await task.request([grant(PLAIN, "other")])
        second = await serial(running, task.handle)
        await client.revoke(more.id)
        third = await serial(running, task.handle)
        await task.request([grant("modern", "work")])  # another audience
        fourth = await serial(running, task.handle)
        assert len({first, second, third}) == 3
        assert fourth == third


# --- how long they live, and what they say ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task_life", "grant_life", "longest"), [(600, 600, 120), (600, 30, 30), (30, 600, 30)], ids=str
)
async def test_lives(
    running: World, client: TaskgrantClient, task_life: float, grant_life: float, longest: float
) -> None:
    """At most 2 minutes, and never past the grant or the task; certificate and token alike."""
    asked = [grant(PLAIN, "read", expires_in=grant_life)]
    async with client.task("short", asked, expires_in=task_life) as task:
        copy = await Copy.of(client, task.id, PLAIN)
        leaf = _leaf(copy.issued.certificate)
        shown, [made] = await client.show_task(task.id)
        claims = _claims(copy.issued.token)
        ends = leaf.not_valid_after_utc.timestamp()
        assert ends == claims["exp"] == copy.issued.not_after
        assert ends <= min(made.expires_at, shown.deadline)
        assert ends - made.created_at <= longest + 5
        assert leaf.not_valid_before_utc.timestamp() >= made.created_at - 61


async def test_what_they_say(running: World, client: TaskgrantClient) -> None:
    async with client.task("says", [grant(PLAIN, "read")], on_behalf_of="user:alice") as task:
        copy = await Copy.of(client, task.id, PLAIN)
        leaf, claims = _leaf(copy.issued.certificate), _claims(copy.issued.token)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        [name] = list(names)
        assert name.value == f"spiffe://{TRUST_DOMAIN}/agent/researcher/task/{task.id}/aud/{PLAIN}"
        assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert claims["txn"] == task.id
        assert claims["cnf"]["x5t#S256"] == _thumbprint(leaf)
        [entry] = claims["authorization_details"]
        assert entry["actions"] == ["read"]
        await task.complete()
        with pytest.raises(Refused) as refused:
            await Copy.of(client, task.id, PLAIN)
        assert refused.value.code == "task_ended"


def _leaf(chain: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificates(chain)[0]


def _claims(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    decoded = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert isinstance(decoded, dict)
    return decoded


def _thumbprint(leaf: x509.Certificate) -> str:
    return base64.urlsafe_b64encode(leaf.fingerprint(hashes.SHA256())).rstrip(b"=").decode()


# --- what else goes to the tool --------------------------------------------------------------------------------------

FORBIDDEN = {
    "Authorization": "Bearer of-the-agent",
    "Cookie": "a=of-the-agent",
    "X-Forwarded-For": "of-the-agent",
    "X-Forwarded-Host": "of-the-agent",
    "X-Real-IP": "of-the-agent",
    "Forwarded": "for=of-the-agent",
    "Via": "1.1 of-the-agent",
    "X-Http-Method-Override": "of-the-agent",
    "X-Original-URL": "/of-the-agent",
    "Taskgrant-Agent": "of-the-agent",
    "Taskgrant-Grant": "of-the-agent",
    "X-Anything": "of-the-agent",
    "Referer": "http://of-the-agent/",
}


@pytest.mark.parametrize("kind", ["http", "mcp"])
async def test_headers_of_the_agent(running: World, client: TaskgrantClient, kind: str) -> None:
    async def script(peer: Any, tool: Any) -> None:
        await tool.take(peer)
        answer = {"jsonrpc": "2.0", "id": 1, "result": {"content": []}}
        await peer.send(whole(json.dumps(answer).encode(), "Content-Type: application/json"))
        await peer.gone()

    server = PLAIN if kind == "http" else "modern"
    asked = send("POST", "/write", {"a": 1}) if kind == "http" else call()
    dirty = type(asked)(asked.method, asked.path, (*asked.headers, *FORBIDDEN.items()), asked.body)
    tools = ["write"] if kind == "http" else ["work"]
    async with running.tool(server, script) as tool, client.task("headers", [grant(server, *tools)]) as task:
        assert (await running.answer(dirty, task.handle)).code == "allowed"
        [request] = tool.requests
        head = request.partition(b"\r\n\r\n")[0].lower()
        assert b"of-the-agent" not in head
        names = {line.partition(b":")[0] for line in head.split(b"\r\n")[1:]}
        assert not {name for name in names if name.startswith((b"taskgrant", b"x-", b"forwarded"))}
        assert head.count(b"authorization: bearer ey") == 1
        # Some servers read an underscore as a hyphen.
        twisted = type(asked)(
            asked.method, asked.path, (*asked.headers, ("Taskgrant_Serial", "x")), asked.body
        )
        assert (await running.answer(twisted, task.handle)).code == "malformed"


# --- where they are not ----------------------------------------------------------------------------------------------


async def test_keys_and_secrets_are_in_no_file(running: World, client: TaskgrantClient) -> None:
    """Neither in the directories of the sidecar, nor behind a descriptor that it holds, nor in what it started."""
    async with running.tool(PLAIN, echo) as tool, client.task("secrets", [grant(PLAIN, "read")]) as task:
        assert task.handle is not None
        await serial(running, task.handle)
        token = tool.requests[0].lower().partition(b"authorization: bearer ")[2].partition(b"\r\n")[0]
        assert token.startswith(b"ey")
        secrets = {b"PRIVATE KEY": "a key in PEM", task.handle.encode(): "a handle"}
        for path in running.place.directory.rglob("*"):
            if not path.is_file() or path.suffix == ".sock":
                continue
            content = path.read_bytes()
            for secret, what in secrets.items():
                assert secret not in content, f"{what} in {path}"
            assert token not in content.lower(), f"a token in {path}"
        held = list(_held(running.sidecar.pid))
        assert not [target for target in held if "memfd:" in target]
        regular = [target for target in held if target.startswith("/") and not target.startswith("/dev/")]
        inside = str(running.place.directory)
        assert not [
            target for target in regular if not target.startswith((inside, "/proc", "/usr", "/sys"))
        ], regular


def _held(pid: int) -> Iterator[str]:
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with suppress(OSError):
            yield os.readlink(entry.path)


async def test_dropped_with_the_task(running: World, client: TaskgrantClient) -> None:
    async with running.tool(PLAIN, echo) as tool:
        async with client.task("drops", [grant(PLAIN, "read")]) as task:
            await serial(running, task.handle)
            assert (await running.metrics())["taskgrant_live_credentials"] == 1
        assert (await running.metrics())["taskgrant_live_credentials"] == 0
        await until(lambda: not tool.open)


# --- what a guard makes of a copy ------------------------------------------------------------------------------------


async def test_a_copy_at_the_guard(office: Office, orchestrator: TaskgrantClient) -> None:
    """Good while the task runs (it *is* the credential), refused in every mixture and when the task is over."""
    port = office.guard_port
    first = await orchestrator.start({"purpose": "is copied", "grants": [READ, EXPORT]})
    copy = await Copy.of(orchestrator, first.task.id, SERVER)
    assert (await copy.post(port, HELLO))[0] == 200
    stranger = await Copy.of(orchestrator, first.task.id, SERVER)
    # The token of one certificate with the other certificate of the same task, and broken ones.
    head, body, signature = copy.issued.token.split(".")
    for token in (stranger.issued.token, f"{head}.{body}.", f"{head}.{body}.{signature[::-1]}", "x", head):
        status, headers, text = await copy.post(port, HELLO, token=token)
        assert (status, json.loads(text)["code"]) == (401, "credential_refused"), token
        assert "www-authenticate" in headers
    for tool in ("send_mail", "delete_tickets"):  # not in a grant
        wanted = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": tool, "arguments": {}},
        }
        status, _, text = await copy.post(port, wanted)
        assert (status, json.loads(text)["code"]) == (403, "no_grant")
    await orchestrator.revoke(first.grants[0].id)  # one of its two grants
    status, _, text = await copy.post(port, HELLO)
    assert (status, json.loads(text)["code"]) == (401, "revoked")
    remade = await Copy.of(orchestrator, first.task.id, SERVER)
    assert (await remade.post(port, HELLO))[0] == 200
    assert (await orchestrator.complete(first.task.id)).unacknowledged == ()
    for each in (copy, stranger, remade):
        status, _, text = await each.post(port, HELLO)
        assert (status, json.loads(text)["code"]) == (401, "revoked")
    second = await orchestrator.start({"purpose": "comes after", "grants": [READ]})
    other = await Copy.of(orchestrator, second.task.id, SERVER)
    assert (await other.post(port, HELLO))[0] == 200
    for one, token in (
        (other, remade.issued.token),
        (remade, other.issued.token),
    ):  # one task's with another's
        status, _, text = await one.post(port, HELLO, token=token)
        assert status == 401
    await orchestrator.complete(second.task.id)


async def test_a_credential_for_another_audience(place: Any) -> None:
    """A certificate for one tool server is of no use at the guard of another, with its own token or the right one."""
    place.servers["elsewhere"] = {
        "protocol": "mcp",
        "upstream": "https://127.0.0.1:9/mcp",
        "versions": ["2025-11-25"],
    }
    place.boundary.append({"server": "elsewhere", "tools": ["work"]})
    office = Office.start(place)
    async with TaskgrantClient(place.control) as orchestrator:
        task = await orchestrator.start(
            {"purpose": "two audiences", "grants": [READ, grant("elsewhere", "work")]}
        )
        here = await Copy.of(orchestrator, task.task.id, SERVER)
        there = await Copy.of(orchestrator, task.task.id, "elsewhere")
        # Its trust in the guard's certificate is not the point: it is told the guard's name.
        stranger = Copy(_aimed(there), there.context)
        for token in (there.issued.token, here.issued.token):
            status, _, text = await stranger.post(office.guard_port, HELLO, token=token)
            assert (status, json.loads(text)["code"]) == (401, "credential_refused")
        status, _, text = await here.post(office.guard_port, HELLO, token=there.issued.token)
        assert (status, json.loads(text)["code"]) == (401, "credential_refused")
        assert (await here.post(office.guard_port, HELLO))[0] == 200


def _aimed(copy: Copy) -> Any:
    return replace(copy.issued, audience=SERVER)


async def test_no_certificate_or_one_of_nobody(office: Office, orchestrator: TaskgrantClient) -> None:
    """Without a certificate of the trust domain there is no handshake, whatever the token."""
    task = await orchestrator.start({"purpose": "is copied", "grants": [READ]})
    copy = await Copy.of(orchestrator, task.task.id, SERVER)
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.load_verify_locations(cadata=copy.issued.bundle.decode())
    with pytest.raises((aiohttp.ClientError, OSError)):
        await asyncio.wait_for(Copy(copy.issued, bare).post(office.guard_port, HELLO), SOON)
    with pytest.raises(ssl.SSLError):  # the certificate without its key
        client_context(copy.issued.certificate, new_key(), copy.issued.bundle)
