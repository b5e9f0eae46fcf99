"""No grant, no call: whatever is missing, each answer says so in a code, is on record, and no tool sees a byte."""

import json
import signal
from collections.abc import Callable, Iterator

import pytest

from taskgrant.errors import Refused
from tests.e2e.processes import AGENT, installation, wait_for
from tests.e2e.stand import BODY_LIMIT, Reply, Stand, grant, rpc_body, rpc_headers

Act = Callable[[], Reply]


@pytest.fixture(scope="module")
def stand(tmp_path_factory, opa_binary) -> Iterator[Stand]:
    with installation(tmp_path_factory.mktemp("stand"), opa_binary) as place:
        yield Stand.start(place)


# Each prepares its case and answers what the agent then does.


def no_task(stand: Stand) -> Act:
    return lambda: stand.call(None)


def wrong_handle(stand: Stand) -> Act:
    handle = stand.handle(grant())
    return lambda: stand.call(handle[:-2] + "AA")


def ended_task(stand: Stand) -> Act:
    started = stand.task(grant())
    assert stand.call(started.handle).granted
    stand.control.complete(started.task.id)
    return lambda: stand.call(started.handle)


def expired_task(stand: Stand) -> Act:
    started = stand.task(grant(), expires_in=0.05)
    wait_for(lambda: not stand.control.show_task(started.task.id)[0].live, "the task expires")
    return lambda: stand.call(started.handle)


def nothing_granted(stand: Stand) -> Act:
    handle = stand.handle()
    return lambda: stand.call(handle)


def expired_grant(stand: Stand) -> Act:
    started = stand.task(grant(expires_in=0.05))
    wait_for(lambda: stand.control.show_grant(started.grants[0].id).state == "expired", "the grant expires")
    return lambda: stand.call(started.handle)


def revoked_grant(stand: Stand) -> Act:
    started = stand.task(grant())
    assert stand.call(started.handle).granted
    stand.control.revoke(started.grants[0].id)
    return lambda: stand.call(started.handle)


def other_server(stand: Stand) -> Act:
    handle = stand.handle(grant("comment", "desk"))
    return lambda: stand.call(handle, "comment")


def other_tool(stand: Stand) -> Act:
    handle = stand.handle(grant("note"))
    return lambda: stand.call(handle, "other")


def tool_in_other_case(stand: Stand) -> Act:
    handle = stand.handle(grant("note"))
    return lambda: stand.call(handle, "Note")


def other_arguments(stand: Stand) -> Act:
    handle = stand.handle(grant())
    return lambda: stand.call(handle, arguments={"text": 1})


def arguments_not_mentioned(stand: Stand) -> Act:
    handle = stand.handle(grant())
    return lambda: stand.call(handle, arguments={"text": "a", "more": "b"})


def pending(stand: Stand) -> Act:
    handle = stand.handle(grant("guarded"))
    return lambda: stand.call(handle, "guarded")


def exhausted(stand: Stand) -> Act:
    handle = stand.handle(grant(max_uses=1))
    assert stand.call(handle).granted
    return lambda: stand.call(handle)


def rate_limited(stand: Stand) -> Act:
    handle = stand.handle(grant("limited"))
    assert stand.call(handle, "limited").granted
    return lambda: stand.call(handle, "limited")


def denied_by_an_author(stand: Stand) -> Act:
    handle = stand.handle(grant("forbidden"))
    return lambda: stand.call(handle, "forbidden")


def builtin_fails_inside_a_denial(stand: Stand) -> Act:
    handle = stand.handle(grant("scan"))
    return lambda: stand.call(handle, "scan", {"network": "10.0.0.0/99"})


def unknown_server(stand: Stand) -> Act:
    handle = stand.handle(grant())
    return lambda: stand.call(handle, server="elsewhere")


def unknown_host(stand: Stand) -> Act:
    headers = rpc_headers(handle=stand.handle(grant()))
    body = json.dumps(rpc_body("note", {})).encode()
    return lambda: stand.send("http://metadata.internal/mcp", body, headers, listener="proxy")


def address_of_a_tool(stand: Stand) -> Act:
    headers = rpc_headers(handle=stand.handle(grant()))
    body = json.dumps(rpc_body("note", {})).encode()
    target = f"http://127.0.0.1:{stand.tools.port}/mcp"
    return lambda: stand.send(target, body, headers, listener="proxy")


def unknown_path(stand: Stand) -> Act:
    headers = rpc_headers(handle=stand.handle(grant()))
    body = json.dumps(rpc_body("note", {})).encode()
    return lambda: stand.send("/tools/admin", body, headers)


def unknown_operation(stand: Stand) -> Act:
    handle = stand.handle(grant("comment", "desk"))
    return lambda: stand.send("/desk/tickets/7", b"", {"taskgrant-task": handle}, method="DELETE")


def unknown_method(stand: Stand) -> Act:
    handle = stand.handle(grant())
    body = {**rpc_body("note", {}), "method": "tools/destroy"}
    headers = rpc_headers(handle=handle) | {"mcp-method": "tools/destroy"}
    return lambda: stand.send("/tools/mcp", json.dumps(body).encode(), headers)


def unparsable(stand: Stand) -> Act:
    headers = rpc_headers(handle=stand.handle(grant()))
    return lambda: stand.send("/tools/mcp", b'{"jsonrpc": "2.0", "id": 1, "method": ', headers)


def unparsable_operation(stand: Stand) -> Act:
    headers = {"content-type": "application/json", "taskgrant-task": stand.handle(grant("comment", "desk"))}
    return lambda: stand.send("/desk/tickets/7/comments", b'{"text": ', headers)


def wrong_content_type(stand: Stand) -> Act:
    headers = rpc_headers(handle=stand.handle(grant())) | {"content-type": "text/plain"}
    body = json.dumps(rpc_body("note", {})).encode()
    return lambda: stand.send("/tools/mcp", body, headers)


def batch(stand: Stand) -> Act:
    headers = rpc_headers(handle=stand.handle(grant()))
    body = json.dumps([rpc_body("note", {})]).encode()
    return lambda: stand.send("/tools/mcp", body, headers)


def oversized(stand: Stand) -> Act:
    handle = stand.handle(grant())
    return lambda: stand.call(handle, arguments={"text": "a" * BODY_LIMIT})


def oversized_in_chunks(stand: Stand) -> Act:
    headers = rpc_headers(handle=stand.handle(grant()))
    body = json.dumps(rpc_body("note", {"text": "a" * BODY_LIMIT})).encode()
    # An iterable without a length is sent in chunks: nothing is declared.
    pieces = [body[at : at + 4096] for at in range(0, len(body), 4096)]
    return lambda: stand.send("/tools/mcp", iter(pieces), headers)  # type: ignore[arg-type]


def frozen_tool(stand: Stand) -> Act:
    handle = stand.handle(grant("other"))
    stand.control.freeze("tool", "tools/note")
    return lambda: stand.call(handle)


def frozen_server(stand: Stand) -> Act:
    handle = stand.handle(grant("other"))
    stand.control.freeze("tool", "tools")
    return lambda: stand.call(handle, "other")


CASES = [
    (no_task, "no_task"),
    (wrong_handle, "handle_invalid"),
    (ended_task, "task_ended"),
    (expired_task, "task_ended"),
    (nothing_granted, "no_grant"),
    (expired_grant, "grant_expired"),
    (revoked_grant, "revoked"),
    (other_server, "no_grant"),
    (other_tool, "no_grant"),
    (tool_in_other_case, "no_grant"),
    (other_arguments, "arguments_refused"),
    (arguments_not_mentioned, "arguments_refused"),
    (pending, "pending_approval"),
    (exhausted, "uses_exhausted"),
    (rate_limited, "rate_limited"),
    (denied_by_an_author, "denied_by_policy"),
    (builtin_fails_inside_a_denial, "policy_error"),
    (unknown_server, "unknown_server"),
    (unknown_host, "unknown_server"),
    (address_of_a_tool, "unknown_server"),
    (unknown_path, "unknown_operation"),
    (unknown_operation, "unknown_operation"),
    (unknown_method, "unknown_operation"),
    (unparsable, "malformed"),
    (unparsable_operation, "malformed"),
    (wrong_content_type, "unsupported"),
    (batch, "unsupported"),
    (oversized, "too_large"),
    (oversized_in_chunks, "too_large"),
]


def refuses(stand: Stand, act: Act, code: str) -> Reply:
    """The agent is told the code, the trail and the metrics have it, and nothing came through."""
    before, counted = stand.received, decisions(stand, code)
    stand.mark()
    reply = act()
    assert reply.code == code
    assert not reply.granted
    assert reply.text
    record = stand.recorded(code)
    assert record["reason"]
    assert stand.received == before, "a tool server was reached"
    assert not [one for one in stand.records() if one["code"] == "granted"]
    assert decisions(stand, code) > counted
    return reply


def decisions(stand: Stand, code: str) -> float:
    servers = ("tools", "desk", "")
    return sum(
        stand.metric(f'taskgrant_decisions_total{{code="{code}",server="{server}"}}') for server in servers
    )


@pytest.mark.parametrize(
    ("prepare", "code"), [pytest.param(prepare, code, id=prepare.__name__) for prepare, code in CASES]
)
def test_refused(stand, prepare, code):
    refuses(stand, prepare(stand), code)


def test_what_is_granted_does_pass(stand):
    """Or else the table above would hold for a sidecar that refuses everything."""
    handle = stand.handle(
        grant(), grant("comment", "desk", arguments={"properties": {"id": {"type": "string"}}})
    )
    assert stand.call(handle, arguments={"text": "a"}).granted
    assert stand.tools.calls[-1].arguments == {"text": "a"}
    before = len(stand.desk.requests)
    reply = stand.send("/desk/tickets/7/comments", b"", {"taskgrant-task": handle})
    assert reply.status == 200
    assert [one.line for one in stand.desk.requests[before:]] == ["POST /api/tickets/7/comments HTTP/1.1"]


@pytest.mark.parametrize("prepare", [frozen_tool, frozen_server])
def test_frozen(stand, prepare):
    act = prepare(stand)
    scope = "tools/note" if prepare is frozen_tool else "tools"
    try:
        refuses(stand, act, "frozen")
    finally:
        stand.control.unfreeze("tool", scope)


@pytest.mark.parametrize(
    ("kind", "id"), [("agent", AGENT), ("task", None), ("session", "session-1"), ("all", "")]
)
def test_frozen_with_its_task(stand, kind, id):
    """A freeze ends the tasks that it covers; none can be started until it is lifted, and lifting revives nothing."""
    started = stand.task(grant(), session="session-1")
    assert stand.call(started.handle).granted
    id = started.task.id if id is None else id
    stand.control.freeze(kind, id, "an incident")
    try:
        refuses(stand, lambda: stand.call(started.handle), "task_ended")
        if kind != "task":
            with pytest.raises(Refused) as refused:
                stand.task(grant(), session="session-1")
            assert refused.value.code == "frozen"
    finally:
        stand.control.unfreeze(kind, id)
    refuses(stand, lambda: stand.call(started.handle), "task_ended")
    assert stand.call(stand.handle(grant(), session="session-1")).granted


def test_policy_is_too_slow(stand):
    handle = stand.handle(grant())
    assert stand.call(handle).granted
    stand.signal_opa(signal.SIGSTOP)
    try:
        refuses(stand, lambda: stand.call(handle), "policy_unavailable")
    finally:
        stand.signal_opa(signal.SIGCONT)
    wait_for(lambda: stand.call(handle).granted, "calls pass again")


def test_policy_is_gone(stand):
    handle = stand.handle(grant())
    stand.opa.rename(stand.opa.with_suffix(".away"))
    try:
        stand.signal_opa(signal.SIGKILL)
        wait_for(lambda: not stand.ready(), "the sidecar is not ready")
        assert stand.admin("/healthz") == (200, "ok\n")
        refuses(stand, lambda: stand.call(handle), "policy_unavailable")
    finally:
        stand.opa.with_suffix(".away").rename(stand.opa)
    wait_for(stand.ready, "the sidecar has started another OPA")
    assert stand.call(handle).granted
