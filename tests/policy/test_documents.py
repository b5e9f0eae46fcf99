"""Every document that we make is one that the published schemas describe."""

import json
from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from taskgrant.model.call import Kind
from taskgrant.model.egress import EgressConnection, EgressHost, EgressQuery, EgressRequest, Mode
from taskgrant.model.grant import GrantState
from taskgrant.model.ids import CallId
from taskgrant.policy.documents import authz_input, egress_input, grants_input, visible_input
from taskgrant.policy.library import library
from tests.policy.make import ASK, GRANT, NOW, QUERY, TASK, query

REQUEST = EgressRequest(
    CallId("call-1"), EgressHost("api.example:8443"), "POST", "/v1/messages", (("beta", None), ("beta", "1")),
    (("api-version", "1"),), (("x-api-key", "s3cret"),), b"{}", ("model", "input"), {"model": "m"},
)  # fmt: skip


def _check(name: str, document: dict[str, Any]) -> dict[str, Any]:
    schema = json.loads((library() / "schemas" / f"{name}.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    sent: dict[str, Any] = json.loads(json.dumps(document))
    jsonschema.validate(sent, schema)
    return sent


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.SESSION])
@pytest.mark.parametrize("state", list(GrantState))
def test_calls_fit_the_schema(kind: Kind, state: GrantState) -> None:
    asked = query(call={"kind": kind, "tool": None}, grant={"state": state, "max_uses": None})
    sent = _check("authz_input", authz_input(asked))
    assert sent["resource"]["id"] == "tools/call"


def test_a_call_is_in_it_whole() -> None:
    asked = query(
        call={
            "meta": {"m": 1},
            "params": {"p": 2},
            "headers": (("mcp-x", "1"), ("mcp-x", "2")),
        }
    )
    sent = _check(
        "authz_input", authz_input(replace(asked, task=replace(TASK, on_behalf_of="user:alice"), calls=3))
    )
    assert sent["resource"]["properties"] == {
        "server": "mail",
        "arguments": {"to": "a@example.org"},
        "meta": {"m": 1},
        "params": {"p": 2},
        "headers": {"mcp-x": ["1", "2"]},
    }
    assert sent["subject"]["properties"] == {"on_behalf_of": {"id": "user:alice", "proven": False}}
    assert sent["context"]["time"] == "2026-02-02T02:40:00.000000Z"
    assert sent["context"]["calls"] == 3
    assert sent["context"]["grants"][0]["remaining"] == 2


def test_the_other_questions_fit_their_schemas() -> None:
    _check("visible_input", visible_input(TASK, (GRANT,), "mail", ("send",), NOW))
    _check("grants_input", grants_input(ASK))
    for task in (TASK, None):
        for about in (REQUEST, EgressConnection(CallId("call-2"), EgressHost("pinned.example", Mode.SPLICE))):
            _check(
                "egress_input", egress_input(EgressQuery(about, "spiffe://example.org/agent/a", task, NOW))
            )


def test_of_a_request_that_is_no_call_all_is_in_it_but_secrets() -> None:
    sent = egress_input(EgressQuery(REQUEST, "spiffe://example.org/agent/a", TASK, NOW))
    assert sent["resource"]["properties"] == {
        "port": 8443, "mode": "read", "method": "POST", "path": "/v1/messages",
        "query": {"beta": ["", "1"]}, "headers": {"api-version": ["1"]}, "secrets": ["x-api-key"],
        "has_body": True, "members": ["model", "input"], "body": {"model": "m"},
    }  # fmt: skip
    assert "s3cret" not in json.dumps(sent)


def test_the_others_without_grants() -> None:
    _check("grants_input", grants_input(replace(ASK, grants=())))
    assert authz_input(QUERY)["version"] == 1
