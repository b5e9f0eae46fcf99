import asyncio
import json
import logging
import ssl
from pathlib import Path

import aiohttp
import pytest

from taskgrant.guard.config import GuardConfig
from taskgrant.guard.server import serve
from taskgrant.identity import contexts
from taskgrant.model.event import EventKind
from tests.guard.support import SERVER_NAME, TestAuthority, ToolServer, client, code, guard, tool_server
from tests.identity.support import AGENT, DOMAIN, Domain, SetClock


async def test_a_live_credential_passes_with_verified_context(
    authority: TestAuthority, domain: Domain, tools: ToolServer
) -> None:
    credential = domain.credential(on_behalf_of="user:älice\r\nX: y")
    async with (
        guard(authority, tools.url) as url,
        client(url, credential, domain.signer.bundle()) as sidecar,
        sidecar.call(traceparent="00-1-2-01") as answer,
    ):
        assert answer.status == 200
        assert (await answer.json())["result"] == {"content": []}
        assert "Set-Cookie" not in answer.headers
    ((method, path, headers, body),) = tools.seen
    assert (method, path) == ("POST", "/mcp")
    assert json.loads(body)["params"] == {"name": "send_message", "arguments": {}}
    assert headers["taskgrant-task"] == "task-1"
    assert headers["taskgrant-agent"] == AGENT
    assert headers["taskgrant-grant"] == "grant-1"
    assert headers["taskgrant-serial"] == credential.serial
    assert headers["taskgrant-on-behalf-of"] == "user:%C3%A4lice%0D%0AX:%20y"
    assert headers["traceparent"] == "00-1-2-01"


async def test_headers_that_a_client_made_up_do_not_reach_the_tool_server(
    authority: TestAuthority, domain: Domain, tools: ToolServer
) -> None:
    async with (
        guard(authority, tools.url) as url,
        client(url, domain.credential(on_behalf_of=""), domain.signer.bundle()) as sidecar,
    ):
        forged = {
            "Taskgrant-Task": "task-2",
            "TASKGRANT-AGENT": "root",
            "Taskgrant-On-Behalf-Of": "user:root",
            "X-Forwarded-For": "1.2.3.4",
            "X-Forwarded-Client-Cert": "Subject=root",
            "Forwarded": "for=1.2.3.4",
            "Cookie": "a=b",
            "X-Real-Ip": "1.2.3.4",
            "X-HTTP-Method-Override": "DELETE",
        }
        async with sidecar.call(**forged) as answer:
            assert answer.status == 200
        for name in ("Taskgrant_Task", "X_Forwarded_For"):
            headers = {**sidecar.headers(), name: "x"}
            async with sidecar.post(b"{}", headers) as answer:
                assert (answer.status, await code(answer)) == (400, "malformed")
    ((_, _, headers, _),) = tools.seen
    assert headers["taskgrant-task"] == "task-1"
    assert headers["taskgrant-agent"] == AGENT
    known = {"host", "content-type", "content-length", "accept", "mcp-protocol-version"}
    known |= {"taskgrant-task", "taskgrant-agent", "taskgrant-grant", "taskgrant-serial"}
    assert set(headers) == known


async def test_what_is_forwarded_is_encoded_anew(
    authority: TestAuthority, domain: Domain, tools: ToolServer
) -> None:
    body = b'{"method": "tools/call", "id": 1,  "params": {"arguments": {}, "name": "send_message"}, "jsonrpc": "2.0"}'
    doubled = (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"send_message","Name":"delete"}}'
    )
    async with (
        guard(authority, tools.url) as url,
        client(url, domain.credential(), domain.signer.bundle()) as sidecar,
    ):
        async with sidecar.post(body, sidecar.headers()) as answer:
            assert answer.status == 200
        async with sidecar.post(doubled, sidecar.headers()) as answer:
            assert (answer.status, await code(answer)) == (400, "malformed")
    ((_, _, _, sent),) = tools.seen
    assert sent != body
    assert json.loads(sent) == json.loads(body)


@pytest.mark.parametrize(
    "changed, tool, expected",
    [
        pytest.param({}, "delete_all", (403, "no_grant"), id="a tool that no grant names"),
        pytest.param({"task": "task-2", "txn": "task-1"}, "send_message", (401, "credential_refused"), id="task"),
        pytest.param({"server": "files"}, "send_message", (401, "credential_refused"), id="audience of both"),
        pytest.param({"aud": "spiffe://example.org/guard/files"}, "send_message", (401, "credential_refused"),
                     id="audience of the token"),
        pytest.param({"cnf": {"x5t#S256": "other"}}, "send_message", (401, "credential_refused"), id="binding"),
        pytest.param({"exp": 5}, "send_message", (401, "credential_refused"), id="token expired"),
        pytest.param(
            {"authorization_details": [{"type": "payment"}]}, "send_message", (401, "credential_refused"), id="details"
        ),
        pytest.param({"client_id": "x", "act": {"sub": "x"}}, "send_message", (401, "credential_refused"), id="agent"),
        pytest.param(
            {"uri": "spiffe://example.org/agent/researcher"}, "send_message", (401, "credential_refused"), id="an agent"
        ),
    ],
)  # fmt: skip
async def test_refusals(
    authority: TestAuthority,
    domain: Domain,
    tools: ToolServer,
    caplog: pytest.LogCaptureFixture,
    changed: dict[str, object],
    tool: str,
    expected: tuple[int, str],
) -> None:
    """Each answered with its code, none seen by the tool server, one line in the log, and the token nowhere
    in it.
    """
    credential = domain.credential(**changed)  # type: ignore[arg-type]
    async with (
        guard(authority, tools.url) as url,
        client(url, credential, domain.signer.bundle()) as sidecar,
    ):
        with caplog.at_level(logging.WARNING, "taskgrant.guard"):
            async with sidecar.call(tool) as answer:
                assert (answer.status, await code(answer)) == expected
                assert "WWW-Authenticate" in answer.headers
    (record,) = [each for each in caplog.records if "refused" in each.message]
    assert vars(record)["code"] == expected[1]
    assert credential.token not in str(vars(record))
    assert tools.seen == []


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer ", "Basic YTpi", "Bearer abc", "Bearer a.b.c"]
)
async def test_without_a_token_nobody_passes(
    authority: TestAuthority, domain: Domain, tools: ToolServer, authorization: str | None
) -> None:
    async with (
        guard(authority, tools.url) as url,
        client(url, domain.credential(), domain.signer.bundle()) as sidecar,
    ):
        headers = sidecar.headers()
        del headers["Authorization"]
        if authorization is not None:
            headers["Authorization"] = authorization
        async with sidecar.post(b"{}", headers) as answer:
            assert (answer.status, await code(answer)) == (401, "credential_refused")
            assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert tools.seen == []


async def test_a_copied_token_is_worth_nothing_with_another_certificate(
    authority: TestAuthority, domain: Domain, tools: ToolServer
) -> None:
    copied, own = domain.credential(), domain.credential()
    async with (
        guard(authority, tools.url) as url,
        client(url, own, domain.signer.bundle()) as thief,
    ):
        assert await thief.refused(token=copied.token) == (401, "credential_refused")
        async with thief.call() as answer:
            assert answer.status == 200


async def test_a_certificate_that_runs_out_on_an_open_connection_is_refused(
    authority: TestAuthority, domain: Domain, tools: ToolServer, clock: SetClock
) -> None:
    async with (
        guard(authority, tools.url, staleness_seconds=3600.0) as url,
        client(url, domain.credential(exp=int(clock.at) + 3000), domain.signer.bundle()) as sidecar,
    ):
        async with sidecar.call() as answer:
            assert answer.status == 200
        clock.at += 121
        assert await sidecar.refused() == (401, "credential_refused")


async def test_another_trust_domain_does_not_get_through_the_handshake(
    authority: TestAuthority, domain: Domain, tools: ToolServer
) -> None:
    stranger = Domain(domain.clock).credential()
    async with (
        guard(authority, tools.url) as url,
        client(url, stranger, domain.signer.bundle()) as sidecar,
    ):
        with pytest.raises(aiohttp.ClientError):
            await sidecar.refused()
    assert tools.seen == []


@pytest.mark.parametrize("named", [{"tasks": ["task-1"]}, {"grants": ["grant-1"]}])
async def test_a_revocation_cuts_a_running_stream_before_it_is_acknowledged(
    authority: TestAuthority, domain: Domain, tools: ToolServer, named: dict[str, list[str]]
) -> None:
    credential = domain.credential(grants=(("grant-1", ("slow",)),))
    other = domain.credential(task="task-2", grants=(("grant-2", ("slow",)),))
    async with (
        guard(authority, tools.url) as url,
        client(url, credential, domain.signer.bundle()) as sidecar,
        client(url, other, domain.signer.bundle()) as bystander,
        bystander.call("slow") as untouched,
        sidecar.call("slow") as answer,
    ):
        assert await answer.content.readany() == b"data: one\n\n"
        assert await untouched.content.readany() == b"data: one\n\n"
        await authority.revoke(**named)
        # Nothing is waited for from here: at the acknowledgement both legs had been aborted.
        with pytest.raises(aiohttp.ClientError):
            await answer.content.read()
        await tools.broken.wait()
        assert not untouched.content.at_eof()
        assert await sidecar.refused("slow") == (401, "revoked")
        async with bystander.list() as again:
            assert again.status == 200


async def test_a_revocation_refuses_a_call_that_waits_for_its_answer(
    authority: TestAuthority, domain: Domain, tools: ToolServer
) -> None:
    credential = domain.credential(grants=(("grant-1", ("silent",)),))
    async with (
        guard(authority, tools.url) as url,
        client(url, credential, domain.signer.bundle()) as sidecar,
    ):
        waiting = asyncio.create_task(sidecar.refused("silent"))
        await tools.arrived.get()
        await authority.revoke(tasks=["task-1"])
        assert await waiting == (401, "revoked")
        await tools.broken.wait()


async def test_one_of_two_grants_takes_only_its_own_calls_with_it(
    authority: TestAuthority, domain: Domain, tools: ToolServer
) -> None:
    """The credential that named both ends as a whole: what runs under the other grant runs on."""
    credential = domain.credential(grants=(("grant-1", ("silent",)), ("grant-2", ("slow",))))
    async with (
        guard(authority, tools.url) as url,
        client(url, credential, domain.signer.bundle()) as sidecar,
        sidecar.call("slow") as running,
    ):
        waiting = asyncio.create_task(sidecar.refused("silent"))
        await tools.arrived.get()
        await tools.arrived.get()
        await authority.revoke(grants=["grant-1"], serials=[credential.serial], jtis=[credential.jti])
        assert await waiting == (401, "revoked")
        assert await running.content.readany() == b"data: one\n\n"
        assert running.connection is not None
        assert await sidecar.refused("slow") == (401, "revoked")


async def test_a_credential_alone_can_be_revoked(
    authority: TestAuthority, domain: Domain, tools: ToolServer
) -> None:
    credential = domain.credential(grants=(("grant-1", ("silent",)),))
    async with (
        guard(authority, tools.url) as url,
        client(url, credential, domain.signer.bundle()) as sidecar,
    ):
        waiting = asyncio.create_task(sidecar.refused("silent"))
        await tools.arrived.get()
        await authority.revoke(jtis=[credential.jti])
        assert await waiting == (401, "revoked")


async def test_a_guard_that_hears_nothing_refuses(
    authority: TestAuthority, domain: Domain, tools: ToolServer, clock: SetClock
) -> None:
    async with (
        guard(authority, tools.url, staleness_seconds=2.0) as url,
        client(url, domain.credential(), domain.signer.bundle()) as sidecar,
    ):
        async with sidecar.call() as answer:
            assert answer.status == 200
        clock.at += 2.0
        assert await sidecar.refused() == (503, "authority_unavailable")
        await authority.acknowledged.get()
        authority.say(EventKind.TASK)
        await authority.acknowledged.get()
        async with sidecar.call() as answer:
            assert answer.status == 200


async def test_a_session_of_another_task_is_not_there(
    authority: TestAuthority, domain: Domain, tools: ToolServer
) -> None:
    first, second = domain.credential(), domain.credential(task="task-2")
    async with (
        guard(authority, tools.url) as url,
        client(url, first, domain.signer.bundle()) as one,
        client(url, second, domain.signer.bundle()) as two,
    ):
        tools.hand_out = "session-a"
        async with one.call() as answer:
            assert answer.headers["Mcp-Session-Id"] == "session-a"
        async with two.call() as answer:  # a tool server that hands it out again
            assert answer.status == 502
            assert "Mcp-Session-Id" not in answer.headers
        tools.hand_out = None
        async with one.call(Mcp_Session_Id="session-a") as answer:
            assert answer.status == 200
        assert tools.seen[-1][2]["mcp-session-id"] == "session-a"
        for stranger in ("session-a", "session-b"):
            assert await two.refused(Mcp_Session_Id=stranger) == (404, "not_found")


async def test_the_sessions_of_an_ended_task_are_ended_at_the_tool_server(
    authority: TestAuthority, domain: Domain, tools: ToolServer
) -> None:
    async with (
        guard(authority, tools.url) as url,
        client(url, domain.credential(), domain.signer.bundle()) as sidecar,
    ):
        tools.hand_out = "session-a"
        async with sidecar.call() as answer:
            assert answer.status == 200
        await tools.arrived.get()
        await authority.revoke(tasks=["task-1"])
        assert await tools.arrived.get() == "DELETE"
        method, path, headers, _ = tools.seen[-1]
        assert (method, path, headers["mcp-session-id"]) == ("DELETE", "/mcp", "session-a")


async def test_a_body_that_is_too_long_is_refused(
    authority: TestAuthority, domain: Domain, tools: ToolServer
) -> None:
    async def parts():
        for _ in range(20):
            yield b"x" * 100

    async with (
        guard(authority, tools.url, body_limit=1000) as url,
        client(url, domain.credential(), domain.signer.bundle()) as sidecar,
    ):
        for data in (b"x" * 1001, parts()):
            async with sidecar.session.post(
                url, data=data, headers=sidecar.headers(), server_hostname=SERVER_NAME
            ) as answer:
                assert (answer.status, await code(answer)) == (413, "too_large")
    assert tools.seen == []


async def test_a_tool_server_that_is_not_there_and_one_that_breaks_off_are_told_apart(
    authority: TestAuthority, domain: Domain, tools: ToolServer, tmp_path: Path
) -> None:
    credential = domain.credential(grants=(("grant-1", ("reset",)),))
    async with (
        guard(authority, tools.url) as url,
        client(url, credential, domain.signer.bundle()) as sidecar,
    ):
        assert await sidecar.refused("reset") == (502, "outcome_unknown")
    assert len(tools.seen) == 1
    async with (
        guard(authority, f"unix://{tmp_path}/nothing:/mcp") as url,
        client(url, credential, domain.signer.bundle()) as sidecar,
    ):
        assert await sidecar.refused("reset") == (502, "upstream_unreachable")


async def test_an_answer_that_stops_short_does_not_look_whole(
    authority: TestAuthority, domain: Domain, tools: ToolServer
) -> None:
    credential = domain.credential(grants=(("grant-1", ("half",)),))
    async with (
        guard(authority, tools.url) as url,
        client(url, credential, domain.signer.bundle()) as sidecar,
        sidecar.call("half") as answer,
    ):
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientError):
            await answer.read()
    assert len(tools.seen) == 1


async def test_a_large_answer_waits_for_its_reader(
    authority: TestAuthority, domain: Domain, tools: ToolServer
) -> None:
    credential = domain.credential(grants=(("grant-1", ("large",)),))
    async with (
        guard(authority, tools.url) as url,
        client(url, credential, domain.signer.bundle()) as sidecar,
        sidecar.call("large") as answer,
    ):
        await tools.arrived.get()
        # The reader does not read: long before all of it is sent, the tool server has to wait.
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await tools.broken.wait()
        assert len(await answer.read()) == 64 * 2**20
        await tools.broken.wait()


async def test_a_tool_server_on_a_unix_socket(
    authority: TestAuthority, domain: Domain, tmp_path: Path
) -> None:
    async with (
        tool_server(str(tmp_path / "tools")) as tools,
        guard(authority, tools.url) as url,
        client(url, domain.credential(), domain.signer.bundle()) as sidecar,
        sidecar.call() as answer,
    ):
        assert answer.status == 200
        assert tools.seen[0][1] == "/mcp"


async def test_a_guard_for_http_operations(
    authority: TestAuthority, domain: Domain, tools: ToolServer
) -> None:
    operations = [{"tool": "send_message", "method": "POST", "path": "/messages/{to}"}]
    async with (
        guard(authority, tools.url, protocol="http", operations=operations) as url,
        client(url, domain.credential(), domain.signer.bundle()) as sidecar,
    ):
        target = url.removesuffix("/mcp") + "/messages/bob"
        post = sidecar.session.post
        async with post(
            target, json={"text": "hi"}, headers=sidecar.headers(), server_hostname=SERVER_NAME
        ) as answer:
            assert answer.status == 200, await answer.text()
        async with post(url, json={}, headers=sidecar.headers(), server_hostname=SERVER_NAME) as answer:
            assert (answer.status, await code(answer)) == (404, "unknown_operation")
    ((_, path, _, body),) = tools.seen
    assert path == "/mcp/messages/bob"
    assert json.loads(body) == {"text": "hi"}


async def test_a_client_that_is_slow_with_its_head_is_dropped(
    authority: TestAuthority, domain: Domain, tools: ToolServer
) -> None:
    credential = domain.credential()
    context = contexts.client_context(credential.chain, credential.key, domain.signer.bundle())
    async with guard(authority, tools.url, header_seconds=0.05) as url:
        port = int(url.split(":")[2].split("/")[0])
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname=SERVER_NAME
        )
        writer.write(b"POST /mcp HTTP/1.1\r\nHost:")
        assert await reader.read() == b""
        writer.close()


async def test_connections_beyond_the_bound_are_closed(
    authority: TestAuthority, domain: Domain, tools: ToolServer
) -> None:
    first = domain.credential()
    async with (
        guard(authority, tools.url, connections=1) as url,
        client(url, first, domain.signer.bundle()) as one,
        client(url, domain.credential(), domain.signer.bundle()) as two,
        one.call() as answer,
    ):
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientError):
            await two.refused()


async def test_plain_text_and_clients_without_a_certificate_get_nothing(
    authority: TestAuthority, domain: Domain, tools: ToolServer
) -> None:
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.load_verify_locations(cadata=domain.signer.bundle().decode())
    async with guard(authority, tools.url) as url, aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get(url.replace("https", "http"))
        with pytest.raises(aiohttp.ClientError):
            await session.get(url, ssl=bare, server_hostname=SERVER_NAME)


async def test_a_stream_of_messages_is_resumed_in_its_own_session(
    authority: TestAuthority, domain: Domain, tools: ToolServer
) -> None:
    async with (
        guard(authority, tools.url) as url,
        client(url, domain.credential(), domain.signer.bundle()) as sidecar,
    ):
        tools.hand_out = "session-a"
        async with sidecar.call() as answer:
            assert answer.status == 200
        headers = sidecar.headers(Mcp_Session_Id="session-a", Last_Event_ID="7")
        del headers["Content-Type"]
        async with sidecar.session.get(url, headers=headers, server_hostname=SERVER_NAME) as answer:
            assert answer.status == 200
        method, _, seen, body = tools.seen[-1]
        assert (method, seen["mcp-session-id"], seen["last-event-id"], body) == ("GET", "session-a", "7", b"")
        async with sidecar.session.delete(url, headers=headers, server_hostname=SERVER_NAME) as answer:
            assert answer.status == 200
        assert tools.seen[-1][0] == "DELETE"
        assert await sidecar.refused(Mcp_Session_Id="session-a") == (404, "not_found")


async def test_a_body_that_does_not_come_is_refused(
    authority: TestAuthority, domain: Domain, tools: ToolServer
) -> None:
    credential = domain.credential()
    context = contexts.client_context(credential.chain, credential.key, domain.signer.bundle())
    async with guard(authority, tools.url, body_seconds=0.05) as url:
        port = int(url.split(":")[2].split("/")[0])
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname=SERVER_NAME
        )
        head = f"POST /mcp HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nAuthorization: Bearer {credential.token}\r\n\r\n"
        writer.write(head.encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
        writer.close()
    assert tools.seen == []


async def test_a_client_that_goes_takes_its_request_with_it(
    authority: TestAuthority, domain: Domain, tools: ToolServer
) -> None:
    credential = domain.credential(grants=(("grant-1", ("slow",)),))
    async with guard(authority, tools.url) as url:
        async with client(url, credential, domain.signer.bundle()) as sidecar, sidecar.call("slow") as answer:
            assert await answer.content.readany() == b"data: one\n\n"
        await tools.broken.wait()


async def test_without_another_clock_the_real_one_counts(domain: Domain, tools: ToolServer) -> None:
    ready = asyncio.Event()
    told = {"server": "mail", "trust_domain": DOMAIN, "listen": "127.0.0.1:0", "upstream": tools.url}
    config = GuardConfig.model_validate(told | {"staleness_seconds": 3600})
    ports: list[int] = []
    serving = asyncio.create_task(
        serve(config, TestAuthority(domain), ready, bound=lambda address: ports.append(address[1]))
    )
    await ready.wait()
    credential = domain.credential()
    url = f"https://127.0.0.1:{ports[0]}/mcp"
    async with client(url, credential, domain.signer.bundle()) as sidecar, sidecar.call() as answer:
        assert answer.status == 200
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
