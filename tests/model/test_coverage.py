"""Coverage: the table of the module, row by row, and what is told when nothing covers."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrant.model.call import Call, Kind
from taskgrant.model.codes import Code
from taskgrant.model.coverage import best_refusal, compare, covers, covers_server, excessive
from taskgrant.model.grant import Grant, GrantState
from taskgrant.model.ids import CallId, GrantId, TaskId
from taskgrant.model.schema import canonical
from taskgrant.model.time import Instant

NOW = Instant(1_000.0)
TO_A = canonical({"properties": {"to": {"enum": ["a"]}}, "required": ["to"]})
OPEN = canonical({"additionalProperties": True})
GRANT = Grant(
    id=GrantId("grant-1"),
    task=TaskId("task-1"),
    server="mail",
    tools=("send", "Read"),
    schemas=(TO_A,),
    state=GrantState.ACTIVE,
    created_at=Instant(0.0),
    expires_at=Instant(2_000.0),
    requested_by="uid:1",
)
CALL = Call(CallId("call-1"), "mcp", "mail", "tools/call", Kind.TOOL, "send", {"to": "a"})
OTHER = replace(CALL, arguments={"to": "b"})


def test_a_grant_that_fits_covers() -> None:
    assert covers(GRANT, CALL, NOW) is None
    assert covers(replace(GRANT, max_uses=2, used=1), CALL, NOW) is None
    assert covers(replace(GRANT, schemas=(OPEN, TO_A)), CALL, NOW) is None


@pytest.mark.parametrize(
    "changes, call, code, pointer",
    [
        ({"server": "Mail"}, {}, Code.NO_GRANT, ""),
        ({"server": "mail "}, {}, Code.NO_GRANT, ""),
        ({"tools": ("*",)}, {}, Code.NO_GRANT, ""),
        ({"tools": ()}, {}, Code.NO_GRANT, ""),
        ({}, {"tool": "Send"}, Code.NO_GRANT, ""),
        ({}, {"tool": "read"}, Code.NO_GRANT, ""),
        ({}, {"tool": "sen"}, Code.NO_GRANT, ""),
        ({}, {"tool": None}, Code.NO_GRANT, ""),
        ({"state": GrantState.REVOKED}, {}, Code.REVOKED, ""),
        ({"state": GrantState.EXPIRED}, {}, Code.GRANT_EXPIRED, ""),
        ({"state": GrantState.REJECTED}, {}, Code.NO_GRANT, ""),
        ({"state": GrantState.PENDING}, {}, Code.PENDING_APPROVAL, ""),
        ({"state": GrantState.EXHAUSTED}, {}, Code.USES_EXHAUSTED, ""),
        ({"state": GrantState.EXHAUSTED, "in_flight": 1}, {}, Code.USES_EXHAUSTED, ""),
        ({"max_uses": 1, "used": 1}, {}, Code.USES_EXHAUSTED, ""),
        ({"max_uses": 1, "used": 2}, {}, Code.USES_EXHAUSTED, ""),
        ({"expires_at": NOW}, {}, Code.GRANT_EXPIRED, ""),
        ({"expires_at": math.nan}, {}, Code.GRANT_EXPIRED, ""),
        ({"state": GrantState.PENDING, "expires_at": NOW}, {}, Code.GRANT_EXPIRED, ""),
        ({}, {"arguments": {"to": "b"}}, Code.ARGUMENTS_REFUSED, "/to"),
        ({}, {"arguments": {}}, Code.ARGUMENTS_REFUSED, "/to"),
        ({}, {"arguments": {"to": "a", "bcc": "b"}}, Code.ARGUMENTS_REFUSED, "/bcc"),
        ({"schemas": (TO_A, canonical(None))}, {}, Code.ARGUMENTS_REFUSED, "/to"),
        ({"schemas": (OPEN, TO_A)}, {"arguments": {"to": "b"}}, Code.ARGUMENTS_REFUSED, "/to"),
        ({"schemas": ()}, {}, Code.ARGUMENTS_REFUSED, ""),
    ],
)
def test_what_is_lacking(changes: dict[str, Any], call: dict[str, Any], code: Code, pointer: str) -> None:
    gap = covers(replace(GRANT, **changes), replace(CALL, **call), NOW)
    assert gap is not None
    assert (gap.code, gap.pointer) == (code, pointer)


@pytest.mark.parametrize("kind", [Kind.LIST, Kind.STREAM, Kind.NOTICE, Kind.ANSWER, Kind.SESSION])
@pytest.mark.parametrize(
    "changes, code",
    [
        ({}, None),
        ({"schemas": (canonical(None),)}, None),
        ({"server": "files"}, Code.NO_GRANT),
        ({"state": GrantState.PENDING}, Code.PENDING_APPROVAL),
        ({"state": GrantState.REVOKED}, Code.REVOKED),
        ({"state": GrantState.EXHAUSTED}, Code.USES_EXHAUSTED),
        ({"state": GrantState.EXHAUSTED, "in_flight": 1}, None),
        ({"state": GrantState.EXHAUSTED, "in_flight": 1, "expires_at": NOW}, Code.GRANT_EXPIRED),
        ({"expires_at": NOW}, Code.GRANT_EXPIRED),
    ],
)
def test_calls_without_a_tool_need_a_live_grant_for_the_server(
    kind: Kind, changes: dict[str, Any], code: Code | None
) -> None:
    grant, call = replace(GRANT, **changes), replace(CALL, kind=kind, tool=None, arguments={})
    gap = covers(grant, call, NOW)
    assert (gap and gap.code) == code
    assert gap == covers_server(grant, "mail", NOW)
    if code is not None:
        assert best_refusal([grant], call, NOW).code is code


REVOKED = replace(GRANT, state=GrantState.REVOKED)
EXPIRED = replace(GRANT, state=GrantState.EXPIRED)
EXHAUSTED = replace(GRANT, state=GrantState.EXHAUSTED)
PENDING = replace(GRANT, state=GrantState.PENDING)
REJECTED = replace(GRANT, state=GrantState.REJECTED)
ONLY_B = replace(GRANT, schemas=(canonical({"properties": {"to": {"const": "b"}}}),))


@pytest.mark.parametrize(
    "grants, call, code",
    [
        ([], CALL, Code.NO_GRANT),
        ([replace(GRANT, server="x"), replace(GRANT, tools=("x",))], CALL, Code.NO_GRANT),
        ([REJECTED], CALL, Code.NO_GRANT),
        ([GRANT], OTHER, Code.ARGUMENTS_REFUSED),
        ([replace(GRANT, server="x"), GRANT], OTHER, Code.ARGUMENTS_REFUSED),
        ([PENDING], OTHER, Code.ARGUMENTS_REFUSED),
        # A grant that is over says something only about the calls that it would have covered.
        ([REVOKED, EXPIRED, EXHAUSTED, REJECTED], OTHER, Code.NO_GRANT),
        ([REVOKED], CALL, Code.REVOKED),
        ([REVOKED, EXPIRED], CALL, Code.GRANT_EXPIRED),
        ([REVOKED, EXHAUSTED, EXPIRED], CALL, Code.USES_EXHAUSTED),
        ([REVOKED, EXHAUSTED, PENDING], CALL, Code.PENDING_APPROVAL),
        ([ONLY_B, EXHAUSTED], CALL, Code.USES_EXHAUSTED),
        ([ONLY_B, REVOKED], CALL, Code.REVOKED),
        ([ONLY_B, REJECTED], CALL, Code.ARGUMENTS_REFUSED),
    ],
)
def test_the_most_telling_refusal(grants: list[Grant], call: Call, code: Code) -> None:
    assert best_refusal(grants, call, NOW).code is code
    assert best_refusal(reversed(grants), call, NOW) == best_refusal(grants, call, NOW)


def test_arguments_beyond_the_bounds_are_found_before_opa_is_asked() -> None:
    huge = replace(CALL, arguments={"to": "a", "n": 2**53 + 1})
    for grants in ([GRANT], [REVOKED], [EXHAUSTED, GRANT]):
        gap = excessive(compare(grants, huge))
        assert gap is not None
        assert (gap.code, gap.pointer) == (Code.ARGUMENTS_REFUSED, "/n")
        assert best_refusal(grants, huge, NOW).code is Code.ARGUMENTS_REFUSED
    assert excessive(compare([GRANT], CALL)) is None
    assert excessive(compare([GRANT], OTHER)) is None
    assert excessive(compare([replace(GRANT, server="x")], huge)) is None


def test_comparing_arguments_once_says_the_same_as_comparing_them_again() -> None:
    grants = [GRANT, REVOKED, EXHAUSTED, EXPIRED, PENDING, ONLY_B]
    for call in (CALL, OTHER, replace(CALL, arguments={"to": "a", "n": 2**53 + 1})):
        for grant in grants:
            assert covers(grant, call, NOW, compare([grant], call)) == covers(grant, call, NOW)


def test_a_refusal_names_neither_values_nor_places() -> None:
    refusal = best_refusal([GRANT], OTHER, NOW)
    assert "to" not in refusal.reason.split("/")
    assert "/to" not in refusal.reason
    assert not refusal.can_ask
    assert not refusal.begun


@given(
    st.builds(
        replace,
        st.just(GRANT),
        state=st.sampled_from(GrantState),
        expires_at=st.floats(allow_nan=True),
        max_uses=st.none() | st.integers(-1, 3),
        used=st.integers(0, 3),
        server=st.sampled_from(["mail", "MAIL", ""]),
        tools=st.lists(st.sampled_from(["send", "*", ""]), max_size=2).map(tuple),
    )
)
def test_only_a_live_grant_that_names_the_call_covers_it(grant: Grant) -> None:
    expected = (
        grant.state is GrantState.ACTIVE
        and grant.expires_at > NOW
        and (grant.max_uses is None or grant.used < grant.max_uses)
        and grant.server == "mail"
        and "send" in grant.tools
    )
    assert (covers(grant, CALL, NOW) is None) is expected
