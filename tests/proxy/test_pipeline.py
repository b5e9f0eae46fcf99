"""Each request from its first byte to its answer: granted, refused on the way with a code on record, cut, or failed."""

import asyncio
import logging
from typing import Any

import pytest
from aiohttp import ClientPayloadError

from taskgrant.model.call import Caller, Refusal
from taskgrant.model.codes import Code
from taskgrant.model.decision import Decision
from taskgrant.model.event import Scope, ScopeKind, Verdict
from taskgrant.proxy.config import ProxyConfig
from tests.proxy.rig import ANYBODY, STREAM, chunk, event, rigged, spec


async def test_a_call_that_is_granted(rig):
    started = await rig.start(spec())
    answer = await rig.modern(started, "tools/call", {"name": "note", "arguments": {"a": 1}}, "note")
    assert (answer.status, answer.code) == (200, "granted")
    assert rig.methods() == ["tools/call"]
    assert rig.requests[0].arguments == {"a": 1}
    assert rig.telemetry.codes == ["granted"]
    assert rig.telemetry.stages == ["parse", "decide", "credential", "record", "upstream"]
    (decided,) = rig.trail.fields("call.decided")
    assert decided["grant"] == started.grants[0].id
    await rig.until(lambda: rig.trail.fields("call.settled"))
    assert (
        rig.trail.fields("call.settled")[0] | {"outcome": "completed", "sent": True, "status": 200}
        == (rig.trail.fields("call.settled")[0])
    )
    assert rig.pipeline.in_flight == 0


async def test_an_operation_that_is_granted(rig):
    started = await rig.start(spec("show", "desk"))
    url = f"{rig.gateway}/desk/tickets/7"
    async with rig.client.get(url, headers=rig.headers(started)) as response:
        assert response.status == 200
    assert [request.line for request in rig.requests] == ["GET /tickets/7 HTTP/1.1"]
    async with rig.client.get(f"{rig.gateway}/desk/tickets/7") as response:
        assert (await response.json())["code"] == "no_task"


@pytest.mark.parametrize(
    ("says", "code"),
    [
        (Decision(True, Code.GRANTED, grant_id=None), "policy_error"),
        (Decision(False, Code.DENIED_BY_POLICY, ("no",)), "denied_by_policy"),
        (Decision(False, Code.POLICY_UNAVAILABLE, ("slow",)), "policy_unavailable"),
    ],
)
async def test_what_policy_refuses(rig, says, code):
    rig.decider.says = lambda query: says
    assert (await rig.call(await rig.start(spec()))).code == code
    assert rig.requests == []
    await rig.until(rig.codes)
    assert rig.codes() == [code]


async def test_a_permit_that_the_grant_does_not_bear_out(rig):
    started = await rig.start(spec("other"))
    rig.decider.says = lambda query: Decision(True, Code.GRANTED, grant_id=query.grants[0].id)
    assert (await rig.call(started)).code == "policy_error"
    assert rig.requests == []


async def test_what_is_missing_is_on_record_for_people(rig):
    assert (await rig.call(await rig.start())).code == "no_grant"
    await rig.until(rig.codes)
    assert rig.trail.fields("call.decided")[0]["miss"] == {"grant": ["tools"]}


async def test_rates(rig):
    rig.decider.limit = 1
    started = await rig.start(spec())
    assert (await rig.call(started)).code == "granted"
    assert (await rig.call(started)).code == "rate_limited"
    assert rig.methods().count("tools/call") == 1


async def test_frozen(rig):
    started = await rig.start(spec("other"))
    await rig.authority.judge(Scope(ScopeKind.TOOL, "tools/note"), Verdict.FREEZE, ANYBODY)
    answer = await rig.call(started)
    assert answer.code == "frozen"
    assert "frozen by an operator" in answer.body.decode()


async def test_no_more_calls_than_configured(tmp_path):
    async with rigged(tmp_path, ProxyConfig(max_calls=1, keepalive_seconds=300)) as rig:
        started = await rig.start(spec())
        release = asyncio.Event()
        usual = rig.behaviour

        async def slow(peer, request):
            await release.wait()
            await usual(peer, request)

        rig.behaviour = slow
        first = asyncio.create_task(rig.call(started))
        await rig.seen.wait()
        assert rig.pipeline.in_flight == 1
        answer = await rig.call(started)
        assert (answer.status, answer.code) == (503, "overloaded")
        release.set()
        assert (await first).code == "granted"


async def test_a_task_that_ends_meanwhile(rig):
    started = await rig.start(spec())
    stuck = asyncio.Event()

    async def silent(peer, request):
        if request.method == "tools/call":
            await stuck.wait()
        else:
            await usual(peer, request)

    usual, rig.behaviour = rig.behaviour, silent
    call = asyncio.create_task(rig.call(started))
    await rig.until(lambda: "tools/call" in rig.methods())
    await rig.end(started)
    answer = await call
    stuck.set()
    assert answer.code == "outcome_unknown"
    assert "may have taken effect" in answer.body.decode()
    assert len(rig.parts.credentials) == 0
    assert (await rig.call(started)).code == "task_ended"


async def test_a_stream_that_is_cut_ends_in_an_event_that_says_so(rig):
    started = await rig.start(spec())
    stuck = asyncio.Event()

    async def streaming(peer, request):
        if request.method != "tools/call":
            return await usual(peer, request)
        await peer.send(STREAM + chunk(event({"jsonrpc": "2.0", "method": "notifications/progress"})))
        await stuck.wait()

    usual, rig.behaviour = rig.behaviour, streaming
    message = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "note"}}
    async with rig.client.post(
        f"{rig.gateway}/tools/mcp", json=message, headers=rig.headers(started)
    ) as response:
        assert b"progress" in await response.content.readuntil(b"\n\n")
        await rig.end(started)
        rest = await response.read()
    stuck.set()
    assert b'"id":7' in rest
    assert b"outcome is unknown" in rest


async def test_an_answer_that_cannot_be_told_apart_is_aborted(rig):
    """Neither a whole answer nor a stream of events: the client sees that it was cut short."""
    started = await rig.start(spec())
    stuck = asyncio.Event()

    async def large(peer, request):
        if request.method != "tools/call":
            return await usual(peer, request)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 3000000\r\n\r\n"
        await peer.send(head + b" " * 2_000_000)
        await stuck.wait()

    usual, rig.behaviour = rig.behaviour, large
    message = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "note"}}
    async with rig.client.post(
        f"{rig.gateway}/tools/mcp", json=message, headers=rig.headers(started)
    ) as response:
        await response.content.readexactly(1_000_000)
        await rig.end(started)
        with pytest.raises(ClientPayloadError):
            await response.read()
    stuck.set()


async def test_a_fault_of_ours_denies(rig, caplog):
    def broken(query):
        raise RuntimeError("a fault")

    rig.decider.says = broken
    with caplog.at_level(logging.CRITICAL + 1):
        answer = await rig.call(await rig.start(spec()))
    assert answer.status == 500
    assert "a fault" not in answer.body.decode()
    assert rig.requests == []
    await rig.until(rig.codes)
    assert rig.codes() == ["invalid"]


async def test_a_disk_that_is_full(rig):
    started = await rig.start(spec())
    rig.trail.fails = True
    answer = await rig.call(started)
    assert answer.code == "audit_unavailable"
    assert "tools/call" not in rig.methods()
    rig.trail.fails = False
    assert (await rig.call(started)).code == "granted"


async def test_who_is_turned_away_is_on_record(rig):
    rig.pipeline.turned_away(Caller(7, "proxy"), Refusal(Code.PEER_REFUSED, "not the agent's"))
    await rig.until(rig.codes)
    fields = {
        "listener": "proxy",
        "server": "",
        "uid": 7,
        "code": "peer_refused",
        "reason": "not the agent's",
    }
    assert rig.trail.fields("call.decided") == [fields]
    assert rig.telemetry.codes == ["peer_refused"]


@pytest.mark.parametrize(
    ("path", "body", "headers", "code"),
    [
        ("/elsewhere/mcp", b"{}", {}, "unknown_server"),
        ("/tools/admin", b"{}", {}, "unknown_operation"),
        ("/desk/nowhere", b"{}", {}, "unknown_operation"),
        ("/tools/mcp", b" " * 70_000, {}, "too_large"),
        ("/tools/mcp", b"{", {"content-type": "application/json"}, "malformed"),
        (
            "/tools/mcp",
            b'{"jsonrpc":"2.0","id":1,"method":"ping"}',
            {"taskgrant-task": "nobodys"},
            "handle_invalid",
        ),
    ],
)
async def test_what_is_refused_before_there_is_a_call(rig, path, body, headers, code):
    headers = {"content-type": "application/json"} | headers
    async with rig.client.post(rig.gateway + path, data=body, headers=headers) as response:
        assert code in await response.text()
    await rig.until(rig.codes)
    assert rig.codes() == [code]
    assert rig.telemetry.codes == [code]


async def test_arguments_that_are_too_much_to_compare_are_not_asked_about(rig):
    asked: list[object] = []

    def says(query):
        asked.append(query)
        return Decision(False, Code.NO_GRANT, ("no",))

    rig.decider.says = says
    nested: Any = 1
    for _ in range(40):
        nested = [nested]
    answer = await rig.call(await rig.start(spec()), arguments={"list": nested})
    assert answer.code == "arguments_refused"
    assert asked == []


async def test_a_grant_that_is_revoked_while_policy_is_asked(rig):
    started = await rig.start(spec(), spec("other"))
    judging: list[asyncio.Task[object]] = []
    usual = rig.decider.decide

    async def slow(query):
        scope = Scope(ScopeKind.GRANT, started.grants[0].id)
        decision = await usual(query)
        judging.append(asyncio.create_task(rig.authority.judge(scope, Verdict.REVOKE, ANYBODY)))
        await rig.until(
            lambda: rig.parts.view.live(started.task.id, rig.parts.clock.now())[0].state == "revoked"
        )
        return decision

    rig.decider.decide = slow
    assert (await rig.call(started)).code == "revoked"
    assert rig.requests == []
    await asyncio.gather(*judging)


async def test_an_operation_that_is_cut(rig):
    """There is no event to say so in: before anything was answered it is said in an answer."""
    started = await rig.start(spec("show", "desk"))
    stuck = asyncio.Event()

    async def silent(peer, request):
        await stuck.wait()

    rig.behaviour = silent
    call = asyncio.create_task(_show(rig, started))
    await rig.seen.wait()
    await rig.end(started)
    status, problem = await call
    stuck.set()
    assert (status, problem["code"], problem["title"]) == (504, "outcome_unknown", "Outcome unknown")
    await rig.until(lambda: rig.trail.fields("call.settled"))
    assert rig.trail.fields("call.settled")[0]["outcome"] == "cut"


async def _show(rig, started):
    url = f"{rig.gateway}/desk/tickets/7"
    async with rig.client.get(url, headers=rig.headers(started)) as response:
        return response.status, await response.json()
