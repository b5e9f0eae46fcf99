"""The asyncio client against the real API on a real socket."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from taskgrant.client import RunningTask, TaskgrantClient
from taskgrant.errors import Refused
from taskgrant.model.event import Cursor, EventKind
from taskgrant.model.grant import GrantSpec, GrantState
from taskgrant.model.task import Outcome, TaskSpec, TaskState
from tests.api.support import GRANT, Served

SPEC = GrantSpec("mail", ("send_message",), max_uses=1, reason="why not")


async def test_every_operation_gives_values_of_the_model(api: Served) -> None:
    api.authority.pending = True
    async with TaskgrantClient(api.socket) as client:
        started = await client.start(TaskSpec("test", (SPEC,), expires_in=60.0, uid=7), key="k")
        assert started.handle == "handle-of-task-0000"
        assert (started.task.uid, started.task.deadline - started.task.created_at) == (7, 60.0)
        assert (await client.start({"purpose": "test"}, key="k")).handle is None
        assert await client.rotate(started.task.id) == "new-handle-of-task-0000"
        (grant,) = await client.request(started.task.id, [GRANT], key="g")
        assert grant.schemas == (GRANT["arguments"],)
        assert await client.show_grant(grant.id) == grant
        assert await client.list_grants(limit=1) == started.grants
        assert await client.list_tasks() == (started.task,)
        assert await client.list_tasks(after=started.task.id) == ()
        assert await client.show_task(started.task.id) == (started.task, (*started.grants, grant))
        assert (await client.report(started.task.id))["uses"] == 0
        assert (await client.reject(grant.id, "no")).grants == (grant.id,)
        assert (await client.revoke(started.grants[0].id)).grants == (started.grants[0].id,)
        assert (await client.show_grant(grant.id)).state is GrantState.REJECTED
        assert (await client.freeze("tool", "mail", "odd")).durable_at is None
        await client.unfreeze("all")
        assert api.authority.reasons == ["no", "", "odd", ""]
        assert (await client.enrol("mail", b"\x30\x00")).jwks == {"keys": []}
        assert (await client.issue(started.task.id, "mail", b"\x30\x00")).token == "token-2"
        assert await client.introspect("t", "mail") == {"active": True}
        assert await client.jwks() == {"keys": []}
        assert (await client.bundle()).startswith(b"-----BEGIN CERTIFICATE")
        assert (await client.crl()).startswith(b"-----BEGIN X509 CRL")
        ended = await client.end(started.task.id, Outcome.CANCEL)
        assert ended.unacknowledged == ("guard-1",)


async def test_refusals_carry_code_and_places(api: Served) -> None:
    async with TaskgrantClient(api.socket) as client:
        with pytest.raises(Refused) as refused:
            await client.start({"purpose": "", "grants": [{"server": 1}]})
        assert refused.value.code == "invalid"
        assert {fault["pointer"] for fault in refused.value.details["errors"]} >= {
            "/purpose",
            "/grants/0/server",
        }
        api.authority.pending = True
        started = await client.start(TaskSpec("t", (SPEC,)))
        with pytest.raises(Refused, match="nobody approves") as refused:
            await client.approve(started.grants[0].id)
        assert refused.value.code == "forbidden"


@pytest.mark.parametrize("id", ["../v1/tasks", "..", "a/b", "a?b", "a%2Fb", "", "\u2028"])
async def test_an_identifier_never_leaves_its_place_in_the_path(api: Served, id: str) -> None:
    async with TaskgrantClient(api.socket) as client:
        with pytest.raises(Refused) as refused:
            await client.complete(id)
        assert refused.value.code == "not_found"


async def test_nobody_there_names_the_socket(tmp_path: Path) -> None:
    async with TaskgrantClient(tmp_path / "none.sock") as client:
        for ask in (client.list_tasks(), anext(client.events())):
            with pytest.raises(Refused, match=r"none\.sock cannot be reached") as refused:
                await ask
            assert refused.value.code == "authority_unavailable"


async def test_an_authority_that_does_not_answer_in_time(api: Served) -> None:
    api.authority.hold.clear()
    async with TaskgrantClient(api.socket, timeout=0.05) as client:
        with pytest.raises(Refused, match="did not answer in time"):
            await client.start({"purpose": "t"})
    api.authority.hold.set()


async def test_events_resume_and_are_acknowledged(api: Served) -> None:
    async with TaskgrantClient(api.socket) as client, aclosing(client.events(subscriber="guard-1")) as events:
        assert (await anext(events)).kind is EventKind.SNAPSHOT
        assert api.authority.subscribers == ["guard-1"]
        await client.start({"purpose": "a"})
        first = await anext(events)
        await client.acknowledge("guard-1", first.cursor)
        assert api.authority.acknowledged == [("guard-1", first.cursor)]
        await client.start({"purpose": "b"})
        second = await anext(events)
        async with aclosing(client.events(first.cursor)) as resumed:
            assert await anext(resumed) == second


async def test_a_stream_that_ends_is_an_error_not_an_end(api: Served) -> None:
    async with TaskgrantClient(api.socket) as client:
        events = client.events()
        await anext(events)
        await api.server.stop()
        with pytest.raises(Refused) as refused:
            await anext(events)
        assert refused.value.code == "authority_unavailable"


async def test_a_problem_on_the_stream_is_raised(api: Served) -> None:
    async with TaskgrantClient(api.socket) as client:
        with pytest.raises(Refused, match="from the future") as refused:
            await anext(client.events(Cursor("memory", 99)))
        assert refused.value.code == "conflict"


async def test_a_task_is_completed_when_its_block_is_left(api: Served) -> None:
    async with TaskgrantClient(api.socket) as client:
        async with client.task("test", [SPEC], on_behalf_of="user:alice") as task:
            assert api.authority.by_task[task.started.task.id].on_behalf_of == "user:alice"
            assert [one.server for one in task.grants] == ["mail"]
            assert await task.request([GRANT])
            assert (await task.report())["uses"] == 0
        assert api.authority.by_task[task.started.task.id].state is TaskState.COMPLETED


async def fail_in_a_task(client: TaskgrantClient, before: Callable[[RunningTask], Awaitable[object]]) -> None:
    async with client.task("test") as task:
        await before(task)
        raise ZeroDivisionError


async def test_a_task_is_cancelled_by_an_exception(api: Served) -> None:
    async with TaskgrantClient(api.socket) as client:
        with pytest.raises(ZeroDivisionError):
            await fail_in_a_task(client, RunningTask.report)
    assert [one.state for one in api.authority.by_task.values()] == [TaskState.CANCELLED]


async def test_a_task_that_was_ended_in_its_block_is_left_alone(api: Served) -> None:
    async with TaskgrantClient(api.socket) as client:
        async with client.task("test") as task:
            await task.cancel()
        with pytest.raises(ZeroDivisionError):
            await fail_in_a_task(client, RunningTask.complete)
    assert api.authority.ended == ["task-0000", "task-0001"]


@pytest.mark.parametrize("while_", ["starting", "working"])
async def test_cancelling_the_caller_leaves_no_task_behind(api: Served, while_: str) -> None:
    working = asyncio.Event()

    async def work() -> None:
        async with client.task("test"):
            working.set()
            await asyncio.Event().wait()

    async with TaskgrantClient(api.socket) as client:
        if while_ == "starting":
            api.authority.hold.clear()
        worker = asyncio.create_task(work())
        await (api.authority.begun if while_ == "starting" else working).wait()
        worker.cancel()
        await asyncio.sleep(0)
        api.authority.hold.set()
        with pytest.raises(asyncio.CancelledError):
            await worker
    assert [one.state for one in api.authority.by_task.values()] == [TaskState.CANCELLED]


async def test_an_exception_is_not_hidden_by_an_authority_that_is_gone(api: Served) -> None:
    async with TaskgrantClient(api.socket) as client:
        with pytest.raises(ZeroDivisionError):
            await fail_in_a_task(client, lambda task: api.server.stop())


async def test_what_a_subprocess_is_given(api: Served) -> None:
    async with TaskgrantClient(api.socket) as client, client.task("test") as task:
        assert task.env("http://127.0.0.1:9") == {
            "HTTP_PROXY": "http://task:handle-of-task-0000@127.0.0.1:9",
            "http_proxy": "http://task:handle-of-task-0000@127.0.0.1:9",
            "NO_PROXY": "",
            "no_proxy": "",
            "TASKGRANT_TASK": "handle-of-task-0000",
        }
        assert task.id == "task-0000"
