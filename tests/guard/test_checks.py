from dataclasses import replace

import pytest

from taskgrant.guard import checks
from taskgrant.guard.checks import Verified
from taskgrant.guard.revocations import RevocationState
from taskgrant.identity.certificates import CertificateFault, Peer
from taskgrant.identity.spiffe import CredentialId
from taskgrant.identity.tokens import GrantEntry, TokenFault, VerifiedToken
from taskgrant.model.call import Call, Kind, Refusal
from taskgrant.model.codes import Code
from taskgrant.model.event import Cursor, Event, EventKind
from taskgrant.model.ids import CallId, GrantId, TaskId
from taskgrant.model.json import JsonObject
from taskgrant.model.time import Instant

AGENT, TASK = "spiffe://example.org/agent/researcher", TaskId("task-1")
PEER = Peer(CredentialId(AGENT, TASK, "mail"), "abc", Instant(0), Instant(100), "print")
TOKEN = VerifiedToken(
    jti="jti-1",
    subject=AGENT,
    agent=AGENT,
    task=TASK,
    audience="spiffe://example.org/guard/mail",
    scopes=(),
    grants=(GrantEntry(GrantId("grant-1"), ("send", "read")), GrantEntry(GrantId("grant-2"), ("read",))),
    issued_at=Instant(0),
    expires_at=Instant(100),
    thumbprint="print",
)
CALL = Call(CallId("call-1"), "mcp", "mail", "tools/call", Kind.TOOL, "send")
NOW = Instant(50)


def _state(**revoked: list[str]) -> RevocationState:
    state = RevocationState(2.0)
    body: JsonObject = {"revoked": revoked}
    state.apply(Event(Cursor("e", 1), EventKind.SNAPSHOT, NOW, body), NOW)
    return state


def _code(
    peer: Peer | CertificateFault = PEER,
    token: VerifiedToken | TokenFault = TOKEN,
    call: Call = CALL,
    state: RevocationState | None = None,
    now: float = NOW,
) -> Code | tuple[str, ...]:
    answer = checks.check(peer, token, call, state or _state(), Instant(now))
    return answer.grants if isinstance(answer, Verified) else answer.code


def test_a_request_is_covered_by_the_grants_that_name_its_tool() -> None:
    assert _code() == ("grant-1",)
    assert _code(call=replace(CALL, tool="read")) == ("grant-1", "grant-2")


@pytest.mark.parametrize("kind", [Kind.LIST, Kind.SESSION, Kind.STREAM, Kind.NOTICE, Kind.ANSWER])
def test_what_is_no_tool_is_covered_by_any_grant(kind: Kind) -> None:
    call = replace(CALL, kind=kind, tool=None)
    assert _code(call=call) == ("grant-1", "grant-2")
    assert _code(call=call, state=_state(grants=["grant-1"])) == ("grant-2",)
    assert _code(call=call, state=_state(grants=["grant-1", "grant-2"])) is Code.REVOKED


@pytest.mark.parametrize(
    "peer, token, expected",
    [
        pytest.param(CertificateFault("x"), TOKEN, Code.CREDENTIAL_REFUSED, id="no credential"),
        pytest.param(
            replace(PEER, id=CredentialId(AGENT, TASK, "files")),
            TOKEN,
            Code.CREDENTIAL_REFUSED,
            id="another server",
        ),
        pytest.param(replace(PEER, not_after=NOW), TOKEN, Code.CREDENTIAL_REFUSED, id="run out"),
        pytest.param(replace(PEER, not_before=Instant(51)), TOKEN, Code.CREDENTIAL_REFUSED, id="not yet"),
        pytest.param(PEER, TokenFault("x"), Code.CREDENTIAL_REFUSED, id="no token"),
        pytest.param(
            PEER, replace(TOKEN, thumbprint="other"), Code.CREDENTIAL_REFUSED, id="another certificate"
        ),
        pytest.param(PEER, replace(TOKEN, task=TaskId("task-2")), Code.CREDENTIAL_REFUSED, id="another task"),
        pytest.param(PEER, replace(TOKEN, agent=AGENT + "2"), Code.CREDENTIAL_REFUSED, id="another agent"),
        pytest.param(PEER, replace(TOKEN, grants=TOKEN.grants[1:]), Code.NO_GRANT, id="another tool"),
    ],
)
def test_refusals(peer: Peer | CertificateFault, token: VerifiedToken | TokenFault, expected: Code) -> None:
    assert _code(peer, token) is expected


@pytest.mark.parametrize(
    "revoked", [{"tasks": ["task-1"]}, {"serials": ["abc"]}, {"jtis": ["jti-1"]}, {"grants": ["grant-1"]}]
)
def test_what_has_ended_is_refused(revoked: dict[str, list[str]]) -> None:
    assert _code(state=_state(**revoked)) is Code.REVOKED


def test_a_tool_call_without_a_tool_is_covered_by_nothing() -> None:
    assert _code(call=replace(CALL, tool=None)) is Code.NO_GRANT


def test_a_stale_guard_refuses_before_anything_else() -> None:
    assert _code(now=NOW + 2) is Code.AUTHORITY_UNAVAILABLE
    assert _code(CertificateFault("x"), now=NOW + 2) is Code.AUTHORITY_UNAVAILABLE


def test_a_refusal_says_nothing_of_what_would_have_been_allowed() -> None:
    answer = checks.check(PEER, TOKEN, replace(CALL, tool="delete"), _state(), NOW)
    assert isinstance(answer, Refusal)
    assert "send" not in answer.reason
