"""A guard in front of a command: real processes, of which the server misbehaves on demand."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import pytest

from taskgrant.guard.child import Child, ChildGone
from taskgrant.guard.stdio import child_environment
from taskgrant.model.event import EventKind
from tests.e2e.users import as_user
from tests.guard.support import SERVER_NAME, Client, TestAuthority, client, guard
from tests.identity.support import AGENT, Domain

T = TypeVar("T")
ROGUE = Path(__file__).with_name("rogue.py")
MODERN = "2026-07-28"
VERSION_META = "io.modelcontextprotocol/protocolVersion"
COMMAND = (sys.executable, "-I", "-S", str(ROGUE))
LINE_LIMIT = 50_000
NOBODY = 65534
TOOLS = (
    "plain", "banner", "chatter", "garbage", "batch", "infinite", "endless", "unbroken", "stranger", "dies",
    "answers_and_dies", "complains", "mute", "deaf", "silent", "stubborn", "reports", "asks", "announces",
)  # fmt: skip


@asynccontextmanager
async def rogue(authority: TestAuthority, **changed: Any) -> AsyncIterator[str]:
    told = {"command": COMMAND, "line_limit": LINE_LIMIT, "environment": child_environment({}, ["A=b=c"])}
    async with guard(authority, None, **{**told, **changed}) as url:
        yield url


@asynccontextmanager
async def task(domain: Domain, url: str, name: str = "task-1") -> AsyncIterator[Client]:
    """A sidecar that calls for a task, with one grant of every tool of the rogue."""
    credential = domain.credential(task=name, grants=((f"grant-of-{name}", TOOLS),))
    async with client(url, credential, domain.signer.bundle()) as made:
        yield made


def modern(
    sidecar: Client, tool: str, rpc_id: int | str = 1, *, progress: Any = None, **arguments: Any
) -> "aiohttp.client._RequestContextManager":
    meta = {VERSION_META: MODERN} | ({} if progress is None else {"progressToken": progress})
    params = {"name": tool, "arguments": arguments, "_meta": meta}
    body = {"jsonrpc": "2.0", "id": rpc_id, "method": "tools/call", "params": params}
    headers = sidecar.headers(Mcp_Method="tools/call", Mcp_Name=tool)
    headers["MCP-Protocol-Version"] = MODERN
    return sidecar.post(json.dumps(body).encode(), headers)


def legacy(
    sidecar: Client, method: str, session: str | None, params: Any = None, rpc_id: int | None = 1
) -> "aiohttp.client._RequestContextManager":
    body = {"jsonrpc": "2.0", "method": method, "params": params or {}}
    if rpc_id is not None:
        body["id"] = rpc_id
    more = {} if session is None else {"Mcp_Session_Id": session}
    return sidecar.post(json.dumps(body).encode(), sidecar.headers(**more))


async def opened(sidecar: Client) -> str:
    """A new session."""
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "a", "version": "0"}}
    async with legacy(sidecar, "initialize", None, hello) as answer:
        assert answer.status == 200
        assert (await answer.json())["result"] == {"for": "initialize"}
        return answer.headers["Mcp-Session-Id"]


async def result(request: Any) -> Any:
    async with request as answer:
        assert answer.status == 200, await answer.text()
        return (await answer.json())["result"]


async def messages(answer: aiohttp.ClientResponse) -> list[Any]:
    assert answer.content_type == "text/event-stream"
    text = await answer.text()
    return [
        json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")
    ]


async def refused(request: Any) -> tuple[int, str, bool]:
    async with request as answer:
        problem = await answer.json(content_type=None)
        return answer.status, problem["code"], problem["begun"]


async def until(look: Callable[[], Awaitable[T]]) -> T:
    """What is there once there is something: another process makes it so."""
    async with asyncio.timeout(20):
        while not (seen := await look()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return seen


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def gone(*pids: int) -> None:
    async def look() -> bool:
        return not any(map(exists, pids))

    await until(look)


async def test_a_task_without_sessions_has_one_server_and_another_task_another(
    authority: TestAuthority, domain: Domain
) -> None:
    async with (
        rogue(authority) as url,
        task(domain, url) as sidecar,
        task(domain, url, "task-2") as other,
    ):
        first = await result(modern(sidecar, "plain", all=True))
        first["environment"].pop("LC_CTYPE", None)  # Python's own (PEP 538)
        assert first["environment"] == {
            "A": "b=c",
            "TASKGRANT_TASK_ID": "task-1",
            "TASKGRANT_AGENT": AGENT,
            "TASKGRANT_ON_BEHALF_OF": "user:alice",
        }
        assert (await result(modern(sidecar, "plain")))["pid"] == first["pid"]
        second = await result(modern(other, "plain", all=True))
        assert second["pid"] != first["pid"]
        assert len(second["said"]) == 1
        await authority.revoke(tasks=["task-1"])
        await gone(first["pid"])
        assert (await result(modern(other, "plain")))["pid"] == second["pid"]
    await gone(second["pid"])


async def test_each_session_has_a_server_and_ends_with_it(authority: TestAuthority, domain: Domain) -> None:
    call = {"name": "plain", "arguments": {}}
    async with (
        rogue(authority) as url,
        task(domain, url) as sidecar,
        task(domain, url, "task-2") as other,
    ):
        one, two = await opened(sidecar), await opened(sidecar)
        pids = [(await result(legacy(sidecar, "tools/call", session, call)))["pid"] for session in (one, two)]
        assert pids[0] != pids[1]
        async with legacy(other, "tools/call", one, call) as answer:
            assert answer.status == 404
        async with legacy(sidecar, "tools/list", None) as answer:
            assert answer.status == 400
        async with sidecar.session.delete(
            url, headers=sidecar.headers(Mcp_Session_Id=one), server_hostname=SERVER_NAME
        ) as answer:
            assert answer.status == 204
        await gone(pids[0])
        async with legacy(sidecar, "tools/call", one, call) as answer:
            assert answer.status == 404
        assert (await result(legacy(sidecar, "tools/call", two, call)))["pid"] == pids[1]


async def test_clients_of_a_task_may_use_one_id_and_one_token_at_the_same_time(
    authority: TestAuthority, domain: Domain
) -> None:
    async with rogue(authority) as url, task(domain, url) as sidecar:
        async with asyncio.TaskGroup() as group:
            answers = [
                group.create_task(messages_of(modern(sidecar, "reports", 1, progress=token)))
                for token in ("a", "a", 7)
            ]
        for answer, token in zip(answers, ("a", "a", 7), strict=True):
            progress, last = answer.result()
            assert progress["params"] == {"progressToken": token, "progress": 1}
            assert last["id"] == 1
            assert "result" in last


async def messages_of(request: Any) -> list[Any]:
    async with request as answer:
        return await messages(answer)


async def test_a_line_to_a_server_holds_no_break_that_any_reader_takes_for_one(
    authority: TestAuthority, domain: Domain
) -> None:
    smuggled = '\u2028{"jsonrpc": "2.0", "id": 1, "method": "tools/call"}\u2029\x85\x0b\x0c\r\n\x1c\x1e'
    async with rogue(authority) as url, task(domain, url) as sidecar:
        seen = await result(modern(sidecar, "plain", all=True, text=smuggled))
        assert len(seen["line"].splitlines()) == 1
        assert seen["line"].isascii()
        assert seen["said"][0]["params"]["arguments"]["text"] == smuggled


@pytest.mark.parametrize(
    "tool", ["garbage", "batch", "infinite", "endless", "unbroken", "dies", "mute", "chatter"]
)
async def test_a_server_that_breaks_off_or_writes_no_messages_is_ended_and_the_next_call_has_another(
    tool: str, authority: TestAuthority, domain: Domain
) -> None:
    async with rogue(authority) as url, task(domain, url) as sidecar:
        pid = (await result(modern(sidecar, "plain")))["pid"]
        waiting = asyncio.create_task(refused(modern(sidecar, "silent", "other")))
        await until(partial(_said, sidecar, "silent"))
        assert await refused(modern(sidecar, tool)) == (502, "outcome_unknown", True)
        assert await waiting == (502, "outcome_unknown", True)
        await gone(pid)
        assert (await result(modern(sidecar, "plain")))["pid"] != pid


@pytest.mark.parametrize("tool", ["banner", "stranger", "answers_and_dies"])
async def test_what_does_no_harm_is_borne(tool: str, authority: TestAuthority, domain: Domain) -> None:
    async with rogue(authority) as url, task(domain, url) as sidecar:
        assert await result(modern(sidecar, tool))


async def test_what_a_server_complains_of_is_in_the_log(
    authority: TestAuthority, domain: Domain, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "taskgrant.guard.child")
    async with rogue(authority) as url, task(domain, url) as sidecar:
        assert (await refused(modern(sidecar, "complains")))[1] == "outcome_unknown"
    told = [record for record in caplog.records if record.message.startswith("tool server: ")]
    assert [record.message.removeprefix("tool server: ") for record in told] == [
        "something is amiss",
        "(a long line)",
        "last words",
    ]
    assert {(vars(record)["server"], vars(record)["task"]) for record in told} == {("mail", "task-1")}
    (ended,) = [record for record in caplog.records if record.message == "a tool server has ended"]
    assert vars(ended)["exit_code"] == 1


async def test_a_session_whose_server_has_died_is_over(authority: TestAuthority, domain: Domain) -> None:
    async with rogue(authority) as url, task(domain, url) as sidecar:
        session = await opened(sidecar)
        dies = legacy(sidecar, "tools/call", session, {"name": "dies", "arguments": {}})
        assert await refused(dies) == (502, "outcome_unknown", True)
        async with legacy(sidecar, "tools/list", session) as answer:
            assert answer.status == 404


async def test_cutting_a_call_ends_its_server_and_what_that_has_started(
    authority: TestAuthority, domain: Domain
) -> None:
    async with rogue(authority) as url, task(domain, url) as sidecar, modern(sidecar, "stubborn") as answer:
        line = b""
        while not line.startswith(b"data: "):
            line = await answer.content.readline()
        pids = json.loads(line.removeprefix(b"data: "))["params"]["pids"]
        await authority.revoke(grants=["grant-of-task-1"])
        with pytest.raises(aiohttp.ClientError):
            await answer.read()
        await gone(*pids)


async def test_another_authority_finds_no_server_of_the_earlier_one(
    authority: TestAuthority, domain: Domain
) -> None:
    async with rogue(authority) as url, task(domain, url) as sidecar:
        pid = (await result(modern(sidecar, "plain")))["pid"]
        authority.epoch = "epoch-2"
        authority.say(EventKind.SNAPSHOT, {"revoked": {}})
        await gone(pid)


async def test_servers_are_bounded_for_each_task_and_together(
    authority: TestAuthority, domain: Domain
) -> None:
    async with (
        rogue(authority, children=2, children_per_task=1) as url,
        task(domain, url) as sidecar,
        task(domain, url, "task-2") as second,
        task(domain, url, "task-3") as third,
    ):
        await result(modern(sidecar, "plain"))
        hello = legacy(sidecar, "initialize", None, {"protocolVersion": "2025-11-25"})
        assert await refused(hello) == (503, "overloaded", False)
        await result(modern(second, "plain"))
        assert await refused(modern(third, "plain")) == (503, "overloaded", False)
        await authority.revoke(tasks=["task-2"])

        async def has_room() -> bool:  # when the server of the second has gone
            async with modern(third, "plain") as answer:
                return answer.status == 200

        assert await until(has_room)


async def test_a_server_that_is_not_used_for_long_ends(authority: TestAuthority, domain: Domain) -> None:
    async with rogue(authority, idle_seconds=0.05) as url, task(domain, url) as sidecar:
        await gone((await result(modern(sidecar, "plain")))["pid"])
        assert await result(modern(sidecar, "plain"))


async def test_who_leaves_has_cancelled_and_the_server_is_told(
    authority: TestAuthority, domain: Domain
) -> None:
    async with rogue(authority) as url, task(domain, url) as sidecar:
        leaving = asyncio.create_task(refused(modern(sidecar, "silent")))
        calls = await until(partial(_said, sidecar, "silent"))
        leaving.cancel()
        told = await until(partial(_said, sidecar, "notifications/cancelled"))
        assert [one["params"] for one in told] == [{"requestId": one["id"]} for one in calls]


async def test_a_client_of_a_session_cancels_by_its_own_id(authority: TestAuthority, domain: Domain) -> None:
    async with rogue(authority) as url, task(domain, url) as sidecar, asyncio.timeout(20):
        session = await opened(sidecar)
        everything = {"name": "plain", "arguments": {"all": True}}

        async def said(what: str) -> list[Any]:
            seen = await result(legacy(sidecar, "tools/call", session, everything, 2))
            return _named(seen["said"], what)

        call = legacy(sidecar, "tools/call", session, {"name": "silent", "arguments": {}}, 77)
        waiting = asyncio.create_task(refused(call))
        calls = await until(partial(said, "silent"))
        for wanted in ("77", 78, 77):
            params = {"requestId": wanted}
            notice = legacy(sidecar, "notifications/cancelled", session, params, None)
            async with notice as answer:
                assert answer.status == 202
        told = await said("notifications/cancelled")
        assert [one["params"] for one in told] == [{"requestId": one["id"]} for one in calls]
        waiting.cancel()


async def _said(sidecar: Client, what: str) -> list[Any]:
    return _named((await result(modern(sidecar, "plain", 2, all=True)))["said"], what)


def _named(said: list[Any], what: str) -> list[Any]:
    """Of what was said to a server, the calls of a tool or the messages of a method."""
    return [one for one in said if what in (one["method"], one.get("params", {}).get("name"))]


async def test_what_a_server_says_beside_calls_goes_to_who_listens(
    authority: TestAuthority, domain: Domain
) -> None:
    async with rogue(authority) as url, task(domain, url) as sidecar, asyncio.timeout(20):
        session = await opened(sidecar)
        headers = sidecar.headers(Mcp_Session_Id=session)
        async with sidecar.session.get(url, headers=headers, server_hostname=SERVER_NAME) as stream:
            assert (await stream.content.readline()).startswith(b":")
            call = {"name": "announces", "arguments": {}}
            assert await result(legacy(sidecar, "tools/call", session, call)) == {}
            line = b""
            while not line.startswith(b"data: "):
                line = await stream.content.readline()
            assert json.loads(line.removeprefix(b"data: "))["method"] == "notifications/resources/updated"
            async with sidecar.session.delete(url, headers=headers, server_hostname=SERVER_NAME) as ended:
                assert ended.status == 204
            assert b"data" not in await stream.read()


async def test_a_server_asks_within_a_call_and_gets_the_answer(
    authority: TestAuthority, domain: Domain
) -> None:
    async with rogue(authority) as url, task(domain, url) as sidecar:
        session = await opened(sidecar)
        call = {"name": "asks", "arguments": {}}
        question, last = await messages_of(legacy(sidecar, "tools/call", session, call))
        assert (question["id"], question["method"]) == ("q-1", "elicitation/create")
        assert last["id"] == 1
        answer = json.dumps({"jsonrpc": "2.0", "id": "q-1", "result": {"action": "decline"}}).encode()
        async with sidecar.post(answer, sidecar.headers(Mcp_Session_Id=session)) as taken:
            assert taken.status == 202


async def test_a_server_that_does_not_read_takes_no_more_memory_than_a_little() -> None:
    ended: list[Child] = []
    child = Child(COMMAND, {}, name={}, line_limit=LINE_LIMIT, idle_seconds=60.0, on_end=ended.append)

    def call(tool: str, text: str) -> dict[str, Any]:
        return {"id": 1, "method": "tools/call", "params": {"name": tool, "arguments": {"text": text}}}

    with child.exchange(call("deaf", "")) as (waiting, sent):
        await child.write(sent)
        with child.exchange(call("plain", "x" * 3_000_000)) as (_, large):
            await child.write(large)
        assert ended == [child]
        with pytest.raises(ChildGone, match="does not read"):
            await anext(waiting.messages())
        with pytest.raises(ChildGone):
            await child.write(sent)
    await asyncio.wait_for(child.over, 20)


async def test_the_guard_takes_its_servers_with_it(authority: TestAuthority, domain: Domain) -> None:
    async with rogue(authority) as url, task(domain, url) as sidecar:
        async with modern(sidecar, "stubborn") as answer:
            line = b""
            while not line.startswith(b"data: "):
                line = await answer.content.readline()
        pids = json.loads(line.removeprefix(b"data: "))["params"]["pids"]
    assert not any(map(exists, pids))


async def test_a_server_under_a_user_of_its_own_is_ended_all_the_same(
    authority: TestAuthority, domain: Domain, tmp_path: Path
) -> None:
    command = (*as_user(NOBODY, tmp_path), *COMMAND)
    environment = child_environment(os.environ, [])
    async with (
        rogue(authority, command=command, environment=environment) as url,
        task(domain, url) as sidecar,
    ):
        pid = (await result(modern(sidecar, "plain")))["pid"]
        assert owner(pid) == NOBODY
        await authority.revoke(tasks=["task-1"])
        await gone(pid)


def owner(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def test_variables_of_a_command() -> None:
    own = {"PATH": "/bin", "SECRET": "s", "PASSED": "p"}
    assert child_environment(own, []) == {"PATH": "/bin"}
    assert child_environment(own, ["PASSED", "A=b=c", "PATH="]) == {
        "PATH": "",
        "PASSED": "p",
        "A": "b=c",
    }
    for wrong in ("ABSENT", "=a", ""):
        with pytest.raises(ValueError, match="is not set"):
            child_environment(own, [wrong])
