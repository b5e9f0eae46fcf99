"""What is no answer is no permission."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrant.model.codes import Code
from taskgrant.model.decision import Admission
from taskgrant.policy.decisions import read_admitted, read_decision, read_visible

ALLOWED: dict[str, Any] = {
    "allow": True,
    "code": "granted",
    "reasons": [],
    "grant_id": "grant-1",
    "elevate": None,
    "obligations": {"scopes": ["s"], "mask": [], "rate_per_minute": None},
    "miss": {},
}
DENIED: dict[str, Any] = {
    "allow": False,
    "code": "no_grant",
    "reasons": ["r"],
    "elevate": {"tool": "x"},
    "miss": {},
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def test_reads_an_answer() -> None:
    assert read_decision(ALLOWED, "d", "r").allow
    denied = read_decision(DENIED, "d", "r")
    assert (denied.allow, denied.code, denied.can_ask, denied.decision_id, denied.revision) == (
        False,
        Code.NO_GRANT,
        True,
        "d",
        "r",
    )


@pytest.mark.parametrize(
    "change",
    [
        {"allow": 1},
        {"allow": "true"},
        {"allow": None},
        {"code": "no_grant"},
        {"grant_id": None},
        {"grant_id": ""},
        {"grant_id": 7},
        {"obligations": None},
        {"obligations": {}},
        {"obligations": {"scopes": [], "mask": [7]}},
        {"obligations": {"scopes": "s", "mask": []}},
        {"obligations": {"scopes": [], "mask": [], "rate_per_minute": 0}},
        {"obligations": {"scopes": [], "mask": [], "rate_per_minute": True}},
        {"obligations": {"scopes": [], "mask": [], "rate_per_minute": 1.5}},
    ],
)
def test_refuses_what_is_not_exactly_an_answer(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_decision({**ALLOWED, **change}, "d", "r")


@given(json_values)
def test_nothing_else_allows(value: Any) -> None:
    for document in (value, {**ALLOWED, "allow": value}):
        try:
            decision = read_decision(document, "d", "r")
        except ValueError:
            continue
        assert decision.allow is (value is True)


@pytest.mark.parametrize("code", ["granted", "unheard of", None, 7, ["no_grant"]])
def test_an_unknown_code_is_denied_by_policy(code: Any) -> None:
    denied = read_decision({**DENIED, "code": code}, "d", "r")
    assert (denied.code, denied.can_ask) == (Code.DENIED_BY_POLICY, False)


@pytest.mark.parametrize("result", [None, {}, "send", [7], [""]])
def test_visible_is_a_list_of_names(result: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_visible(result)


def _admitted(**change: Any) -> dict[str, Any]:
    grant = {"server": "mail", "tools": ["send"], "max_uses": None, "within": []}
    return {
        "decision": "approve",
        "code": "granted",
        "grants": [grant],
        "reasons": [],
        "approvers": [],
        **change,
    }


def test_reads_what_is_admitted() -> None:
    assert read_admitted(_admitted(), "d", "r").grants[0].tools == ("send",)
    denied = read_admitted(_admitted(decision="deny", code="granted"), "d", "r")
    assert (denied.admission, denied.grants, denied.code) == (Admission.DENY, (), Code.DENIED_BY_POLICY)
    assert denied.reasons


@pytest.mark.parametrize(
    "change",
    [
        {"decision": "yes"},
        {"decision": True},
        {"grants": None},
        {"grants": ["mail"]},
        {"grants": [{"tools": ["send"]}]},
        {"grants": [{"server": "mail", "tools": "send"}]},
        {"grants": [{"server": "mail", "tools": ["send"], "within": [{"$ref": "#"}]}]},
        {"grants": [{"server": "mail", "tools": ["send"], "within": [True]}]},
        {"approvers": "uid:7"},
        {"reasons": [7]},
    ],
)
def test_admits_nothing_else(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_admitted(_admitted(**change), "d", "r")
