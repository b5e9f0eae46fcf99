import asyncio
import ssl

import aiohttp
import pytest

from taskgrant.identity import contexts
from taskgrant.model.event import Cursor, EventKind
from tests.guard.support import SERVER_NAME, TestAuthority, ToolServer, UnwillingAuthority, client, guard
from tests.identity.support import Credential, Domain, SetClock


async def test_the_snapshot_counts_from_the_first_request_on(
    authority: TestAuthority, domain: Domain, tools: ToolServer
) -> None:
    authority.revoked = {"tasks": ["task-1"]}
    async with (
        guard(authority, tools.url) as url,
        client(url, domain.credential(), domain.signer.bundle()) as sidecar,
    ):
        assert await sidecar.refused() == (401, "revoked")


async def test_every_event_is_acknowledged_though_not_each_by_itself(
    authority: TestAuthority, tools: ToolServer
) -> None:
    async with guard(authority, tools.url):
        kinds = (EventKind.TASK, EventKind.GRANT, EventKind.CREDENTIAL, EventKind.FREEZE)
        *_, last = [authority.say(kind) for kind in kinds]
        while await authority.acknowledged.get() != last:
            pass


async def test_a_broken_stream_is_resumed_where_it_broke(authority: TestAuthority, tools: ToolServer) -> None:
    async with guard(authority, tools.url):
        cursor = authority.say(EventKind.TASK)
        while await authority.acknowledged.get() != cursor:
            pass
        authority.queue.put_nowait(None)  # the stream ends
        authority.say(EventKind.TASK)
        while await authority.acknowledged.get() != Cursor("epoch-1", 2):
            pass
        assert authority.asked_after == [None, cursor]
        assert authority.enrolments == 1


async def test_a_gap_asks_for_a_snapshot_and_misses_nothing(
    authority: TestAuthority, domain: Domain, tools: ToolServer
) -> None:
    async with (
        guard(authority, tools.url) as url,
        client(url, domain.credential(), domain.signer.bundle()) as sidecar,
    ):
        async with sidecar.call() as answer:
            assert answer.status == 200
        authority.seq += 1  # a revocation that got lost
        authority.revoked = {"tasks": ["task-1"]}
        authority.say(EventKind.TASK)
        while (await authority.acknowledged.get()).seq < 2:
            pass
        assert authority.asked_after == [None, None]
        assert await sidecar.refused() == (401, "revoked")


async def test_another_epoch_cuts_what_runs_and_brings_its_own_keys(
    authority: TestAuthority, domain: Domain, tools: ToolServer
) -> None:
    credential = domain.credential(grants=(("grant-1", ("slow", "send_message")),))
    async with guard(authority, tools.url) as url:
        async with client(url, credential, domain.signer.bundle()) as sidecar, sidecar.call("slow") as answer:
            assert await answer.content.readany() == b"data: one\n\n"
            authority.domain, authority.epoch, authority.seq = Domain(domain.clock), "epoch-2", 0
            authority.queue.put_nowait(None)
            while (await authority.acknowledged.get()).epoch != "epoch-2":
                pass
            with pytest.raises(aiohttp.ClientError):
                await answer.content.read()
            await tools.broken.wait()
        assert authority.enrolments == 2
        anew = authority.domain.credential()
        async with client(url, anew, authority.domain.signer.bundle()) as sidecar, sidecar.call() as answer:
            assert answer.status == 200  # the same listener shows the new certificate and trusts the new root
        async with client(url, credential, authority.domain.signer.bundle()) as old:
            with pytest.raises(aiohttp.ClientError):
                await old.refused()


async def _shown(url: str, credential: Credential, bundle: bytes) -> int:
    """The serial of the certificate that the guard shows."""
    context = contexts.client_context(credential.chain, credential.key, bundle)
    port = int(url.split(":")[2].split("/")[0])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=SERVER_NAME)
    tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
    shown = tls.getpeercert()
    writer.close()
    assert shown is not None
    return int(str(shown["serialNumber"]), 16)


async def test_the_certificate_is_renewed_while_connections_stay_up(
    authority: TestAuthority, domain: Domain, tools: ToolServer, clock: SetClock
) -> None:
    authority.guard_life = 60.0
    credential = domain.credential()
    async with (
        guard(authority, tools.url, staleness_seconds=3600.0) as url,
        client(url, credential, domain.signer.bundle()) as sidecar,
        sidecar.call() as before,
    ):
        assert before.status == 200
        assert await _shown(url, credential, domain.signer.bundle()) == 1001
        clock.at += 45
        authority.say(EventKind.TASK)
        authority.say(EventKind.TASK)
        # The second is read when the first has been dealt with.
        while (await authority.acknowledged.get()).seq < 2:
            pass
        assert authority.enrolments == 2
        assert await _shown(url, credential, domain.signer.bundle()) == 1002
        async with sidecar.call() as after:
            assert after.status == 200


async def test_a_guard_that_cannot_enrol_does_not_listen(domain: Domain, tools: ToolServer) -> None:
    authority = UnwillingAuthority(domain)
    opened = asyncio.create_task(guard(authority, tools.url).__aenter__())
    for _ in range(2):
        await authority.asked.get()
    assert not opened.done()
    opened.cancel()
    await asyncio.gather(opened, return_exceptions=True)
