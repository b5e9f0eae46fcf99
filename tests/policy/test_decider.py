"""Each answer, from a real OPA with our own policies."""

from dataclasses import replace
from typing import Any

import pytest

from taskgrant.errors import Refused
from taskgrant.model.call import Kind
from taskgrant.model.codes import Code
from taskgrant.model.decision import Admission, Obligations, Query
from taskgrant.model.egress import (
    EgressAction,
    EgressConnection,
    EgressHost,
    EgressQuery,
    EgressRequest,
    Mode,
)
from taskgrant.model.grant import GrantState
from taskgrant.model.ids import CallId
from taskgrant.model.schema import canonical
from taskgrant.model.time import Instant
from taskgrant.policy.process import PolicyEngine
from tests.policy.make import AGENT, ASK, CALL, GRANT, NOW, QUERY, SPEC, TASK, query

_PAST = Instant(NOW - 1)

CODES: dict[str, tuple[Query, Code]] = {
    "granted": (QUERY, Code.GRANTED),
    "no grants": (replace(QUERY, grants=()), Code.NO_GRANT),
    "other server": (query(grant={"server": "files"}), Code.NO_GRANT),
    "other tool": (query(call={"tool": "purge"}), Code.NO_GRANT),
    "rejected": (query(grant={"state": GrantState.REJECTED}), Code.NO_GRANT),
    "other recipient": (query(call={"arguments": {"to": "x@evil.example"}}), Code.ARGUMENTS_REFUSED),
    "one argument more": (query(call={"arguments": {**CALL.arguments, "bcc": "x"}}), Code.ARGUMENTS_REFUSED),
    "argument missing": (query(call={"arguments": {}}), Code.ARGUMENTS_REFUSED),
    "no schema": (query(grant={"schemas": ()}), Code.ARGUMENTS_REFUSED),
    "expired": (query(grant={"expires_at": _PAST}), Code.GRANT_EXPIRED),
    "exhausted": (query(grant={"state": GrantState.EXHAUSTED, "used": 2}), Code.USES_EXHAUSTED),
    "used up": (query(grant={"used": 2}), Code.USES_EXHAUSTED),
    "pending": (query(grant={"state": GrantState.PENDING}), Code.PENDING_APPROVAL),
    "revoked": (query(grant={"state": GrantState.REVOKED}), Code.REVOKED),
    "task is over": (replace(QUERY, task=replace(TASK, deadline=_PAST)), Code.TASK_ENDED),
    "list": (query(call={"kind": Kind.LIST, "tool": None, "action": "tools/list"}), Code.GRANTED),
    "list of another server": (
        query(call={"kind": Kind.LIST, "tool": None, "action": "tools/list", "server": "files"}),
        Code.NO_GRANT,
    ),
    "many values": (query(call={"params": {"a": [[0] * 11_000, [0] * 11_000]}}), Code.TOO_LARGE),
    "no JSON": (query(call={"arguments": {"to": float("nan")}}), Code.POLICY_ERROR),
}


async def test_codes(engine: PolicyEngine) -> None:
    for name, (asked, code) in CODES.items():
        decision = await engine.decider.decide(asked)
        assert (name, decision.code) == (name, code)
        assert decision.allow is (code is Code.GRANTED)
        assert bool(decision.reasons) is not decision.allow
        assert decision.grant_id == ("grant-1" if decision.allow else None)
        assert decision.decision_id
        assert decision.revision == engine.revision


async def test_obligations_come_from_the_profile(engine: PolicyEngine) -> None:
    decision = await engine.decider.decide(QUERY)
    assert decision.obligations == Obligations(("mail.send",), 30, ("/to",))


async def test_a_refusal_says_what_was_missed_but_not_to_the_agent(engine: PolicyEngine) -> None:
    decision = await engine.decider.decide(query(call={"arguments": {"to": "x@evil.example"}}))
    assert decision.miss == {"grant-1": ("arguments/to: enum",)}
    assert "example.org" not in decision.reason


async def test_only_no_grant_can_be_asked_for(engine: PolicyEngine) -> None:
    asked = await engine.decider.decide(query(call={"tool": "read"}))
    assert (asked.code, asked.can_ask) == (Code.NO_GRANT, True)
    unasked = await engine.decider.decide(query(call={"tool": "purge"}))
    assert (unasked.code, unasked.can_ask) == (Code.NO_GRANT, False)


async def test_visible_is_what_is_granted_or_can_be_asked_for(engine: PolicyEngine) -> None:
    tools = ("send", "read", "purge")
    assert await engine.decider.visible(TASK, (GRANT,), "mail", tools, NOW) == {"send", "read"}
    assert await engine.decider.visible(TASK, (), "mail", tools, NOW) == {"read"}
    assert await engine.decider.visible(TASK, (GRANT,), "files", tools, NOW) == frozenset()


async def test_grants_are_narrowed_to_the_boundary(engine: PolicyEngine) -> None:
    admitted = await engine.decider.admit(ASK)
    assert admitted.admission is Admission.APPROVE
    assert admitted.grants == (replace(SPEC, max_uses=3),)
    assert admitted.reasons == ("grants[0]: max_uses is 3, the most that the agent's boundary allows",)


async def test_grants_outside_the_boundary_are_refused(engine: PolicyEngine) -> None:
    admitted = await engine.decider.admit(replace(ASK, grants=(SPEC, replace(SPEC, tools=("drop",)))))
    assert (admitted.admission, admitted.code) == (Admission.DENY, Code.DENIED_BY_POLICY)
    assert admitted.reasons == ("mail/drop is outside the agent's boundary",)
    stranger = await engine.decider.admit(replace(ASK, agent="spiffe://example.org/agent/other"))
    assert stranger.admission is Admission.DENY


async def test_grants_that_a_person_must_approve(engine: PolicyEngine) -> None:
    admitted = await engine.decider.admit(
        replace(ASK, grants=(replace(SPEC, server="files", tools=("read",)),))
    )
    assert (admitted.admission, admitted.approvers) == (Admission.ASK, ("uid:7",))
    assert len(admitted.grants) == 1


async def test_templates_and_the_boundarys_own_schemas(start: Any, tmp_path: Any) -> None:
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "more.yaml").write_text(
        """
taskgrant:
  boundaries:
    "spiffe://example.org/agent/other":
      - {server: mail, tools: [send], arguments: {properties: {to: {type: string, pattern: "[a-z]+@example[.]org"}}}}
  templates:
    report:
      - {server: mail, tools: [send], arguments: {properties: {to: {const: "${params.to}"}}}}
"""
    )
    async with start() as engine:
        task = replace(TASK, type="report", params={"to": "a@example.org"})
        admitted = await engine.decider.admit(
            replace(ASK, agent="spiffe://example.org/agent/other", task=task, grants=())
        )
    (given,) = admitted.grants
    assert given.arguments == {"properties": {"to": {"const": "a@example.org"}}}
    assert given.within == (
        canonical({"properties": {"to": {"type": "string", "pattern": "[a-z]+@example[.]org"}}}),
    )


async def test_an_authors_denial_overrides_with_its_code(start: Any) -> None:
    rule = 'package taskgrant.authz\n\ndeny contains {"code": "frozen", "reason": "not on Mondays"}\n'
    async with start(deny=rule) as engine:
        decision = await engine.decider.decide(QUERY)
    assert (decision.allow, decision.code, decision.reasons) == (False, Code.FROZEN, ("not on Mondays",))


@pytest.mark.parametrize(
    "denial", ['{"code": "granted"}', '{"code": "no such code"}', '"text"', "7", '{"code": 7}']
)
async def test_an_ill_written_denial_still_denies(start: Any, denial: str) -> None:
    async with start(deny=f"package taskgrant.authz\n\ndeny contains {denial}\n") as engine:
        decision = await engine.decider.decide(QUERY)
    assert (decision.allow, decision.code) == (False, Code.DENIED_BY_POLICY)


async def test_a_builtin_that_fails_inside_a_denial_denies(start: Any) -> None:
    rule = (
        'package taskgrant.authz\n\ndeny contains {"code": "denied_by_policy", "reason": "inside"} if {\n'
        '\tnet.cidr_contains("10.0.0.0/8", input.resource.properties.arguments.to)\n}\n'
    )
    async with start(deny=rule) as engine:
        decision = await engine.decider.decide(QUERY)
        assert (decision.allow, decision.code) == (False, Code.POLICY_ERROR)
        with pytest.raises(Refused) as refused:
            await engine.decider.visible(TASK, (), "mail", (7,), NOW)
        assert refused.value.code == Code.POLICY_ERROR
        assert engine.alive  # the agent can cause this: it says nothing about OPA


async def test_an_undefined_answer_denies(start: Any) -> None:
    rule = "package taskgrant.authz\n\noblige contains input.resource.properties.arguments\n"
    async with start(oblige=rule) as engine:
        decision = await engine.decider.decide(query(call={"arguments": {"to": "a@example.org"}}))
    assert decision.allow  # an obligation without our members asks for nothing


async def test_an_answer_of_another_shape_denies(start: Any) -> None:
    rule = 'package taskgrant.authz\n\noblige contains {"rate_per_minute": "often"}\n'
    async with start(oblige=rule) as engine:
        decision = await engine.decider.decide(query(call={"tool": "read"}, grant={"tools": ("read",)}))
    assert (decision.allow, decision.code) == (False, Code.POLICY_ERROR)


API = EgressHost("api.example", visible=("model",))
REQUEST = EgressRequest(
    CallId("call-1"), API, "POST", "/v1/messages", members=("model",), visible={"model": "m"}
)
DESTINATIONS = """
taskgrant:
  destinations:
    api.example:
      allow: [{methods: [POST], paths: [/v1/messages]}]
      members: [model]
"""


async def test_what_is_no_call_passes_by_its_own_rules(start: Any, tmp_path: Any) -> None:
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "more.yaml").write_text(DESTINATIONS)
    many = replace(REQUEST, visible={"model": [0] * 11_000, "tools": [0] * 11_000})
    pinned = EgressConnection(CallId("call-2"), EgressHost("pinned.example", Mode.SPLICE))
    async with start() as engine:
        for about, task, action, code in (
            (REQUEST, TASK, EgressAction.PASS, Code.GRANTED),
            (REQUEST, None, EgressAction.REFUSE, Code.NO_TASK),
            (replace(REQUEST, path="/v1/files"), TASK, EgressAction.REFUSE, Code.DENIED_BY_POLICY),
            (replace(REQUEST, members=("model", "tools")), TASK, EgressAction.REFUSE, Code.ARGUMENTS_REFUSED),
            (many, TASK, EgressAction.REFUSE, Code.TOO_LARGE),
            (replace(REQUEST, visible={"model": float("nan")}), TASK, EgressAction.REFUSE, Code.POLICY_ERROR),
            (pinned, TASK, EgressAction.SPLICE, Code.GRANTED),
            (pinned, None, EgressAction.REFUSE, Code.NO_TASK),
        ):
            decision = await engine.decider.egress(EgressQuery(about, AGENT, task, NOW))
            assert (decision.action, decision.code) == (action, code)
            assert bool(decision.reason) is (action is EgressAction.REFUSE)
            assert decision.decision_id
            assert decision.revision == engine.revision
