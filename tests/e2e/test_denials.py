"""The agent is told: what was refused, why, and whether it can be asked for; never which values would have passed."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskgrant.errors import Refused
from tests.e2e.processes import installation, wait_for
from tests.e2e.recorder import Request
from tests.e2e.recorder import answer as usual
from tests.e2e.stand import LEGACY, Stand, grant, rpc_headers


@pytest.fixture(scope="module")
def stand(tmp_path_factory, opa_binary) -> Iterator[Stand]:
    with installation(tmp_path_factory.mktemp("stand"), opa_binary) as place:
        yield Stand.start(place)


SECRET = "zq"  # what every allowed value begins with, and nothing that is sent
VALUES = st.text("abcdefghij0123456789-", min_size=8, max_size=16).map(lambda text: f"{SECRET}-{text}")
#: Constraints that say what would pass, as a value, in a pattern, in a name, as a bound.
CONSTRAINTS = st.one_of(
    VALUES.map(lambda value: {"type": "string", "const": value}),
    st.lists(VALUES, min_size=1, max_size=3, unique=True).map(
        lambda values: {"type": "string", "enum": values}
    ),
    VALUES.map(lambda value: {"type": "string", "pattern": f"{value}[0-9]+"}),
    st.integers(7_000_000, 7_999_999).map(
        lambda most: {"type": "integer", "minimum": most, "maximum": most + 9}
    ),
    VALUES.map(lambda value: {"type": "array", "items": {"type": "string", "enum": [value]}, "minItems": 1}),
    VALUES.map(
        lambda value: {"type": "object", "properties": {value: {"type": "string"}}, "required": [value]}
    ),
    VALUES.map(
        lambda value: {"anyOf": [{"type": "string", "const": value}, {"type": "integer", "const": 7123456}]}
    ),
)
ASKED = (
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.text("xyz", max_size=5)
    | st.just(["x"])
    | st.just({"x": 1})
)


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(constraint=CONSTRAINTS, asked=ASKED)
def test_what_would_have_passed_is_never_told(stand, constraint, asked):
    """Not by a value, a bound or a pattern, whatever is tried: that would be an oracle for an injected prompt."""
    schema = {"properties": {"text": constraint}, "required": ["text"]}
    started = stand.task(grant(arguments=schema, max_uses=7_654_321, reason=f"{SECRET}-reason"))
    for arguments in ({"text": asked}, {}, {"text": asked, "more": asked}):
        reply = stand.call(started.handle, arguments=arguments)
        assert reply.code == "arguments_refused"
        said = reply.body.decode()
        assert SECRET not in said
        assert "7123456" not in said
        assert "7654321" not in said
        assert not any(
            str(bound) in said for bound in (constraint.get("minimum"), constraint.get("maximum")) if bound
        )
        assert started.grants[0].id not in said
    stand.control.complete(started.task.id)


def legacy(stand: Stand, handle: str | None, tool: str) -> Any:
    """The same call in the revision before."""
    headers = rpc_headers(handle=handle) | {"mcp-protocol-version": LEGACY}
    del headers["mcp-method"], headers["mcp-name"]
    body = {"jsonrpc": "2.0", "id": "a", "method": "tools/call", "params": {"name": tool, "arguments": {}}}
    return stand.send("/tools/mcp", json.dumps(body).encode(), headers)


def test_a_model_can_read_it(stand):
    """In a result with isError, which clients hand to the model; never a status that starts a client's OAuth flow."""
    handle = stand.handle(grant())
    for reply in (stand.call(handle, "other"), legacy(stand, handle, "other")):
        assert reply.status == 200
        result = reply.message["result"]
        assert result["isError"] is True
        assert result["content"][0]["type"] == "text"
        assert result["_meta"] == {"taskgrant/code": "no_grant", "taskgrant/can_ask": False}
        assert (
            reply.text
            == '"other" was refused: nothing in this task grants this call. It cannot be asked for from here.'
        )


@pytest.mark.parametrize(
    ("tool", "members", "arguments", "told"),
    [
        ("note", {}, {"more": 1}, "with these arguments"),
        ("guarded", {}, {}, "waits for approval"),
        ("forbidden", {}, {}, "nobody calls this tool"),
        ("scan", {}, {"network": "none"}, "polic"),
        ("other", {"expires_in": 0.05}, {}, "expired"),
    ],
)
def test_each_says_what_and_why(stand, tool, members, arguments, told):
    started = stand.task(grant(tool, **members))
    if members:
        wait_for(
            lambda: stand.control.show_grant(started.grants[0].id).state == "expired", "the grant expires"
        )
    reply = stand.call(started.handle, tool, arguments)
    assert reply.text.startswith(f'"{tool}" was refused: ')
    assert told in reply.text
    assert reply.text.count(". ") == 1
    assert reply.text.endswith(".")
    assert "outcome" not in reply.text
    assert "{" not in reply.text


def test_no_task_is_told_in_words(stand):
    assert "no task" in stand.call(None).text.lower()
    started = stand.task(grant())
    stand.control.complete(started.task.id)
    assert "over" in stand.call(started.handle).text


def test_what_can_be_asked_for_is_said(tmp_path, opa_binary):
    with installation(tmp_path, opa_binary) as place:
        place.policy.mkdir()
        asking = {"taskgrant": {"profiles": {"tools/other": {"ask": True}}}}
        (place.policy / "asking.json").write_text(json.dumps(asking))
        stand = Stand.start(place)
        handle = stand.handle(grant())
        reply = stand.call(handle, "other")
        assert reply.code == "no_grant"
        assert reply.message["result"]["_meta"]["taskgrant/can_ask"] is True
        assert reply.text.endswith("Access to it can be asked for.")
        # What is refused for another reason cannot be mended by asking.
        assert (
            stand.call(handle, arguments={"more": 1}).message["result"]["_meta"]["taskgrant/can_ask"] is False
        )


# -- an unknown outcome is no denial ----------------------------------------------------------------------------------


def test_outcome_unknown_is_another_answer(stand):
    """The tool took the call and hung up: it may have acted, so a model must not be told that it was refused."""
    handle = stand.handle(grant(max_uses=5))
    before = len(stand.tools.calls)
    stand.mark()

    def hang_up(request: Request) -> bytes | None:
        return None if request.method == "tools/call" else usual(request)

    stand.tools.answer = hang_up
    try:
        reply = stand.call(handle)
    finally:
        stand.tools.answer = usual
    assert reply.status == 200
    assert reply.code == "outcome_unknown"
    assert "refused:" not in reply.text
    assert "outcome is unknown" in reply.text
    assert "may have taken effect" in reply.text
    assert len(stand.tools.calls) == before + 1, "a permit is one request, also when it fails"
    wait_for(lambda: stand.records("call.settled"), "the use is settled")
    (settled,) = stand.records("call.settled")
    assert settled["sent"] is True
    assert settled["outcome"] != "completed"


def test_a_tool_that_cannot_be_reached_did_nothing(stand):
    started = stand.task(
        grant("comment", "desk", arguments={"properties": {"id": {"type": "string"}}}, max_uses=1)
    )
    stand.desk.close()
    reply = stand.send("/desk/tickets/7/comments", b"", {"taskgrant-task": started.handle or ""})
    assert reply.code == "upstream_unreachable"
    assert "nothing was sent" in reply.text
    assert "unknown" not in reply.text
    assert stand.control.show_grant(started.grants[0].id).used == 0, "a use that was not sent is given back"


def test_orchestrators_are_told_too(stand):
    with pytest.raises(Refused) as refused:
        stand.task(grant("delete_everything"))
    assert refused.value.code == "denied_by_policy"
    assert "outside the agent's boundary" in refused.value.reason
