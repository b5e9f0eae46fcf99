"""The synchronous client, called from a thread while the API runs in this one."""

import asyncio
import inspect
from pathlib import Path

import pytest

from taskgrant.client import SyncTaskgrantClient, TaskgrantClient
from taskgrant.errors import Refused
from taskgrant.model.event import Cursor, EventKind
from taskgrant.model.task import TaskSpec, TaskState
from tests.api.support import GRANT, Served


def test_it_is_the_twin_of_the_asynchronous_one() -> None:
    def methods(client: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(member).parameters)
            for name, member in vars(client).items()
            if callable(member) and not name.startswith("_") and name != "close"
        }

    assert methods(SyncTaskgrantClient) == methods(TaskgrantClient)


async def test_every_operation_gives_values_of_the_model(api: Served) -> None:
    api.authority.pending = True

    def use() -> None:
        client = SyncTaskgrantClient(api.socket)
        started = client.start(TaskSpec("test"), key="k")
        assert client.start({"purpose": "test"}, key="k").handle is None
        assert client.rotate(started.task.id).startswith("new-handle")
        first, second = client.request(started.task.id, [GRANT, GRANT])
        assert client.show_grant(first.id) == first
        assert client.list_grants(after=first.id) == (second,)
        assert client.list_tasks(limit=1) == (started.task,)
        assert client.show_task(started.task.id) == (started.task, (first, second))
        assert client.report(started.task.id)["uses"] == 0
        assert client.reject(first.id).grants == (first.id,)
        assert client.revoke(second.id).grants == (second.id,)
        client.freeze("session", "s")
        client.unfreeze("session", "s")
        client.acknowledge("guard-1", Cursor("memory", 1))
        assert client.enrol("mail", b"x").server == "mail"
        assert client.issue(started.task.id, "mail", b"x").audience == "mail"
        assert client.introspect("t", "files") == {"active": False}
        assert client.jwks() == {"keys": []}
        assert client.bundle().startswith(b"-----BEGIN")
        assert client.crl().startswith(b"-----BEGIN")
        assert client.cancel(started.task.id).tasks == (started.task.id,)
        with pytest.raises(Refused, match="task-0000 is cancelled") as refused:
            client.complete(started.task.id)
        assert refused.value.code == "task_ended"
        with pytest.raises(Refused) as refused:
            client.approve(first.id)
        assert refused.value.code == "forbidden"

    await asyncio.to_thread(use)


async def test_events(api: Served) -> None:
    def use() -> None:
        client = SyncTaskgrantClient(api.socket)
        events = client.events(subscriber="guard-1")
        assert next(events).kind is EventKind.SNAPSHOT
        client.start({"purpose": "a"})
        assert next(events).kind is EventKind.TASK
        events.close()
        with pytest.raises(Refused, match="from the future"):
            next(client.events(Cursor("memory", 99)))
        with pytest.raises(Refused) as refused:
            next(client.events(Cursor("", 99)))
        assert refused.value.code == "invalid"

    await asyncio.to_thread(use)
    await api.authority.unsubscribed()


async def test_a_task_lives_as_long_as_its_block(api: Served) -> None:
    def use() -> None:
        client = SyncTaskgrantClient(api.socket)
        with client.task("one", [GRANT], session="s") as task:
            assert task.env()["TASKGRANT_TASK"] == task.handle
            assert task.grants
            task.request([GRANT])
            task.report()
        with pytest.raises(KeyboardInterrupt), client.task("two"):
            raise KeyboardInterrupt
        with client.task("three") as task:
            task.cancel()
        with client.task("four") as task:
            task.complete()

    await asyncio.to_thread(use)
    done, gone = TaskState.COMPLETED, TaskState.CANCELLED
    assert [one.state for one in api.authority.by_task.values()] == [done, gone, gone, done]


def test_nobody_there_names_the_socket(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"none\.sock cannot be reached") as refused:
        SyncTaskgrantClient(tmp_path / "none.sock").list_tasks()
    assert refused.value.details["unreachable"]


async def test_an_authority_that_does_not_answer_in_time(api: Served) -> None:
    api.authority.hold.clear()
    client = SyncTaskgrantClient(api.socket, timeout=0.05)
    with pytest.raises(Refused, match="did not answer in time"):
        await asyncio.to_thread(client.start, {"purpose": "t"})
    api.authority.hold.set()
