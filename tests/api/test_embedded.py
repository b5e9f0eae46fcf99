"""The control API and its client over the real authority: SQLite, signer, event log."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from taskgrant.api.config import ControlConfig
from taskgrant.api.server import ControlServer
from taskgrant.client import SyncTaskgrantClient, TaskgrantClient
from taskgrant.errors import Refused
from taskgrant.model.decision import Admission, Admitted
from taskgrant.model.event import EventKind
from taskgrant.model.grant import GrantState
from taskgrant.model.task import TaskState
from tests.authority.support import MAIL, Setting, new_csr, opened, spec


@dataclass
class Whole:
    setting: Setting
    client: TaskgrantClient


@pytest.fixture
async def whole(tmp_path: Path) -> AsyncIterator[Whole]:
    async with opened(tmp_path / "state") as setting:
        config = ControlConfig(socket=tmp_path / "control.sock")
        server = ControlServer(setting.authority, config, agent_uids={os.getuid() + 1})
        await server.start()
        try:
            async with TaskgrantClient(config.socket) as client:
                yield Whole(setting, client)
        finally:
            await server.stop()


async def test_a_task_from_start_to_end(whole: Whole) -> None:
    async with whole.client.task("summarise the week", [MAIL]) as task:
        shown, grants = await whole.client.show_task(task.id)
        assert shown.live
        assert grants == task.grants
        assert grants[0].state is GrantState.ACTIVE
        assert task.handle
        with pytest.raises(Refused) as refused:
            await whole.client.approve(grants[0].id)
        assert refused.value.code in {"conflict", "forbidden"}
    shown, grants = await whole.client.show_task(task.id)
    assert shown.state is TaskState.COMPLETED
    assert not grants[0].state.live


async def test_a_replay_shows_no_handle(whole: Whole) -> None:
    first = await whole.client.start(spec(MAIL), key="once")
    again = await whole.client.start(spec(MAIL), key="once")
    assert first.handle
    assert (again.handle, again.task, again.grants) == (None, first.task, first.grants)
    with pytest.raises(Refused) as refused:
        await whole.client.start(spec(MAIL, purpose="another"), key="once")
    assert refused.value.code == "conflict"


async def test_what_is_pending_is_not_approved_by_who_asked(whole: Whole) -> None:
    whole.setting.decider.answer = lambda ask: Admitted(Admission.ASK, ask.grants)
    started = await whole.client.start(spec(MAIL))
    assert started.grants[0].state is GrantState.PENDING
    with pytest.raises(Refused) as refused:
        await whole.client.approve(started.grants[0].id)
    assert refused.value.code == "forbidden"
    ended = await whole.client.cancel(started.task.id)
    assert (ended.tasks, ended.grants) == ((started.task.id,), (started.grants[0].id,))


async def test_pages_hold_every_task_once(whole: Whole) -> None:
    started = {(await whole.client.start(spec())).task.id for _ in range(5)}
    seen: list[str] = []
    while page := await whole.client.list_tasks(seen[-1] if seen else None, limit=2):
        seen += [task.id for task in page]
    assert len(seen) == len(started)
    assert set(seen) == started


async def test_a_credential_ends_with_its_task_everywhere(whole: Whole) -> None:
    client = whole.client
    started = await client.start(spec(MAIL))
    issued = await client.issue(started.task.id, "mail", new_csr())
    certificate = x509.load_pem_x509_certificate(issued.certificate)
    assert format(certificate.serial_number, "x") == issued.serial
    assert (await client.introspect(issued.token, "mail"))["active"] is True
    assert await client.introspect(issued.token, "files") == {"active": False}
    assert (await client.enrol("mail", new_csr())).bundle == await client.bundle()
    await client.cancel(started.task.id)
    assert await client.introspect(issued.token, "mail") == {"active": False}
    revoked = x509.load_pem_x509_crl(await client.crl())
    assert revoked.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
    with pytest.raises(Refused) as refused:
        await client.issue(started.task.id, "mail", new_csr())
    assert refused.value.code == "task_ended"


async def test_ending_waits_for_the_guard_that_listens(whole: Whole) -> None:
    client = whole.client
    started = await client.start(spec(MAIL))
    async with aclosing(client.events(subscriber="guard-1")) as events:
        assert (await anext(events)).kind is EventKind.SNAPSHOT
        ending = asyncio.create_task(client.complete(started.task.id))
        told = [await anext(events) for _ in range(3)]
        assert [one.kind for one in told] == [EventKind.REVOCATION, EventKind.TASK, EventKind.GRANT]
        assert not ending.done()
        await client.acknowledge("guard-1", told[-1].cursor)
        assert (await ending).unacknowledged == ()


async def test_freezing_stops_and_blocks(whole: Whole) -> None:
    started = await whole.client.start(spec(MAIL))
    await whole.client.freeze("all", reason="drill")
    with pytest.raises(Refused) as refused:
        await whole.client.start(spec(MAIL))
    assert refused.value.code == "frozen"
    await whole.client.unfreeze("all")
    assert not (await whole.client.show_task(started.task.id))[0].live


async def test_the_synchronous_client_too(whole: Whole) -> None:
    def use() -> None:
        with SyncTaskgrantClient(whole.client.socket).task("one", [MAIL]) as task:
            assert task.env()["TASKGRANT_TASK"] == task.handle

    await asyncio.to_thread(use)
