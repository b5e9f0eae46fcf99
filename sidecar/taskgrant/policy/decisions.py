"""OPA's answers as decisions: read strictly. What is not exactly an answer raises ``ValueError`` and is a denial."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from taskgrant.model.codes import Code
from taskgrant.model.decision import Admission, Admitted, Decision, Obligations
from taskgrant.model.documents import read_grant_spec
from taskgrant.model.egress import EgressAction, EgressDecision
from taskgrant.model.grant import GrantSpec
from taskgrant.model.ids import GrantId
from taskgrant.model.schema import canonical


def read_decision(result: object, decision_id: str, revision: str) -> Decision:
    """The answer of ``taskgrant.authz``. Raises ValueError."""
    answer = _object(result, "decision")
    if answer.get("allow") is True:
        if answer.get("code") != Code.GRANTED:
            raise ValueError("the decision allows, but its code is not granted")
        return Decision(
            allow=True,
            code=Code.GRANTED,
            grant_id=GrantId(_text(answer.get("grant_id"), "grant_id")),
            obligations=_obligations(_object(answer.get("obligations"), "obligations")),
            decision_id=decision_id,
            revision=revision,
        )
    if answer.get("allow") is not False:
        raise ValueError("allow is neither true nor false")
    return Decision(
        allow=False,
        code=_refusal(answer.get("code")),
        reasons=_texts(answer.get("reasons"), "reasons") or ("policy refuses this call",),
        can_ask=isinstance(answer.get("elevate"), Mapping) and answer.get("code") == Code.NO_GRANT,
        miss={name: _texts(found, "miss") for name, found in _object(answer.get("miss", {}), "miss").items()},
        decision_id=decision_id,
        revision=revision,
    )


def read_visible(result: object) -> frozenset[str]:
    """The answer of ``taskgrant.visible``. Raises ValueError."""
    return frozenset(_texts(result, "tools"))


def read_egress(result: object, connecting: bool, decision_id: str, revision: str) -> EgressDecision:
    """The answer of ``taskgrant.egress``. Raises ValueError, also for one to another question: what is to be read is
    never let through unread.
    """
    answer = _object(result, "decision")
    action = EgressAction(_text(answer.get("action"), "action"))
    if action is EgressAction.REFUSE:
        reasons = _texts(answer.get("reasons"), "reasons") or ("policy refuses this",)
        return EgressDecision(action, _refusal(answer.get("code")), reasons, decision_id, revision)
    if action is not (EgressAction.SPLICE if connecting else EgressAction.PASS):
        raise ValueError(f"{action.value} is no answer to what was asked")
    if answer.get("code") != Code.GRANTED:
        raise ValueError("the decision lets it pass, but its code is not granted")
    return EgressDecision(action, Code.GRANTED, (), decision_id, revision)


def read_admitted(result: object, decision_id: str, revision: str) -> Admitted:
    """The answer of ``taskgrant.grants``. Raises ValueError, also for a schema that no grant may have."""
    answer = _object(result, "decision")
    admission = Admission(_text(answer.get("decision"), "decision"))
    refused = admission is Admission.DENY
    reasons = _texts(answer.get("reasons"), "reasons")
    return Admitted(
        admission=admission,
        grants=() if refused else tuple(_spec(one) for one in _list(answer.get("grants"), "grants")),
        reasons=reasons or (("policy refuses this",) if refused else ()),
        approvers=_texts(answer.get("approvers"), "approvers"),
        code=_refusal(answer.get("code")) if refused else Code.GRANTED,
        decision_id=decision_id,
        revision=revision,
    )


def _spec(document: object) -> GrantSpec:
    members = {name: value for name, value in _object(document, "grant").items() if value is not None}
    within = tuple(canonical(_object(one, "within")) for one in _list(members.pop("within", []), "within"))
    return replace(read_grant_spec(members), within=within)


def _refusal(code: object) -> Code:
    """The code of a denial. One that is unknown, or that is none of a denial, is ``denied_by_policy``."""
    try:
        known = Code(str(code))
    except ValueError:
        return Code.DENIED_BY_POLICY
    return Code.DENIED_BY_POLICY if known is Code.GRANTED else known


def _obligations(members: Mapping[str, Any]) -> Obligations:
    rate = members.get("rate_per_minute")
    if rate is not None and (type(rate) is not int or rate < 1):
        raise ValueError("rate_per_minute is no whole number, 1 or more")
    return Obligations(_texts(members.get("scopes"), "scopes"), rate, _texts(members.get("mask"), "mask"))


def _object(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is no object")
    return value


def _list(value: object, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{name} is no list")
    return value


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is no text")
    return value


def _texts(value: object, name: str) -> tuple[str, ...]:
    return tuple(_text(one, name) for one in _list(value, name))
