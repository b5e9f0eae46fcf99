"""Credentials: only under a live grant, never past it, and known again afterwards."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from taskgrant.errors import Refused
from taskgrant.identity import spiffe, tokens
from taskgrant.model.codes import Code
from taskgrant.model.event import Scope, ScopeKind, Verdict
from taskgrant.model.ids import TaskId
from taskgrant.model.task import Outcome
from tests.authority.support import (
    ADMIN,
    AGENT,
    GUARD,
    MAIL,
    ORCHESTRATOR,
    TRUST_DOMAIN,
    Setting,
    new_csr,
    opened,
    spec,
)  # fmt: skip


async def a_task(s: Setting, *grants, **changes) -> TaskId:
    return (await s.authority.start(spec(*grants, **changes), ORCHESTRATOR, None)).task.id


async def code_of(doing) -> Code:
    with pytest.raises(Refused) as caught:
        await doing
    return Code(caught.value.code)


async def test_certificate_and_token_are_a_pair(tmp_path: Path):
    async with opened(tmp_path) as s:
        task = await a_task(s, MAIL, on_behalf_of="user:alice")
        issued = await s.authority.issue(task, "mail", new_csr())
        leaf = x509.load_pem_x509_certificates(issued.certificate)[0]
        san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert san.get_values_for_type(x509.UniformResourceIdentifier) == [f"{AGENT}/task/{task}/aud/mail"]
        assert f"{leaf.serial_number:x}" == issued.serial
        assert leaf.not_valid_after_utc.timestamp() == issued.not_after == s.clock.now() + 120
        assert leaf.not_valid_before_utc.timestamp() == s.clock.now() - 60
        known = tokens.read(
            issued.token, await s.authority.jwks(), spiffe.audience(TRUST_DOMAIN, "mail"), s.clock.now()
        )
        assert known.jti == issued.jti
        assert issued.bundle == await s.authority.bundle()
    fields = s.trail.fields("credential.issued")[0]
    assert fields["serial"] == issued.serial
    assert issued.token not in str(s.trail.records)


@pytest.mark.parametrize(
    "grants, life, expected",
    [
        ([replace(MAIL, expires_in=30)], None, 30),
        ([replace(MAIL, expires_in=30), replace(MAIL, expires_in=70)], None, 70),
        ([MAIL], 50, 50),
        ([MAIL], None, 120),
    ],
)
async def test_it_never_outlives_grant_or_task(tmp_path: Path, grants, life, expected):
    async with opened(tmp_path) as s:
        task = await a_task(s, *grants, expires_in=life)
        issued = await s.authority.issue(task, "mail", new_csr())
        assert issued.not_after == s.clock.now() + expected


async def test_no_live_grant_no_credential(tmp_path: Path):
    async with opened(tmp_path) as s:
        task = await a_task(s, replace(MAIL, expires_in=30))
        issue = s.authority.issue
        assert await code_of(issue(task, "files", new_csr())) is Code.NO_GRANT
        assert await code_of(issue(task, "mail", b"nonsense")) is Code.INVALID
        assert await code_of(issue(TaskId("task-x"), "mail", new_csr())) is Code.NOT_FOUND
        s.clock.advance(29.5)
        assert await code_of(issue(task, "mail", new_csr())) is Code.GRANT_EXPIRED
        s.clock.advance(0.5)
        assert await code_of(issue(task, "mail", new_csr())) is Code.NO_GRANT
        await s.authority.end(task, Outcome.COMPLETE, ORCHESTRATOR)
        assert await code_of(issue(task, "mail", new_csr())) is Code.TASK_ENDED


async def test_unrecorded_is_unissued(tmp_path: Path):
    async with opened(tmp_path) as s:
        task = await a_task(s, MAIL)
        s.trail.fails = True
        assert await code_of(s.authority.issue(task, "mail", new_csr())) is Code.AUDIT_UNAVAILABLE
        s.trail.fails = False


async def test_a_revocation_that_comes_while_it_is_made_takes_it_along(tmp_path: Path):
    async with opened(tmp_path) as s:
        task = await a_task(s, MAIL)
        issuing = asyncio.ensure_future(s.authority.issue(task, "mail", new_csr()))
        await asyncio.sleep(0)
        ended = await s.authority.end(task, Outcome.COMPLETE, ORCHESTRATOR)
        assert await code_of(issuing) is Code.REVOKED
        assert ended.tasks == (task,)
        end = b"-----END X509 CRL-----\n"
        issuers = (await s.authority.crl()).split(end)[0] + end
        revoked = x509.load_pem_x509_crl(issuers)
        assert len(list(revoked)) == 1


async def test_frozen(tmp_path: Path):
    async with opened(tmp_path) as s:
        task = await a_task(s, MAIL)
        await s.authority.judge(Scope(ScopeKind.TOOL, "mail"), Verdict.FREEZE, ADMIN)
        assert await code_of(s.authority.issue(task, "mail", new_csr())) is Code.FROZEN


async def test_introspection(tmp_path: Path):
    async with opened(tmp_path) as s:
        task = await a_task(s, MAIL)
        issued = await s.authority.issue(task, "mail", new_csr())
        ask = s.authority.introspect
        answer = await ask(issued.token, "mail")
        assert answer["active"] is True
        assert answer["txn"] == task
        assert answer["cnf"]
        assert (await ask(issued.token, spiffe.audience(TRUST_DOMAIN, "mail")))["active"] is True
        dead = {"active": False}
        assert await ask(issued.token, "files") == dead
        assert await ask(issued.token + "x", "mail") == dead
        s.clock.advance(120)
        assert await ask(issued.token, "mail") == dead
        fresh = await s.authority.issue(task, "mail", new_csr())
        assert (await ask(fresh.token, "mail"))["active"] is True
        await s.authority.end(task, Outcome.COMPLETE, ORCHESTRATOR)
        assert await ask(fresh.token, "mail") == dead


async def test_what_was_issued_and_revoked_is_known_after_a_restart(tmp_path: Path):
    async with opened(tmp_path) as s:
        one, two = await a_task(s, MAIL), await a_task(s, MAIL)
        kept = await s.authority.issue(one, "mail", new_csr())
        gone = await s.authority.issue(two, "mail", new_csr())
        await s.authority.end(two, Outcome.COMPLETE, ORCHESTRATOR)
    async with opened(tmp_path) as s:
        assert (await s.authority.introspect(kept.token, "mail"))["active"] is True
        assert (await s.authority.introspect(gone.token, "mail"))["active"] is False


async def test_guards_enrol(tmp_path: Path):
    async with opened(tmp_path) as s:
        enrolled = await s.authority.enrol("mail", new_csr(), GUARD)
        leaf = x509.load_pem_x509_certificates(enrolled.certificate)[0]
        san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert san.get_values_for_type(x509.UniformResourceIdentifier) == [
            spiffe.guard_id(TRUST_DOMAIN, "mail")
        ]
        assert san.get_values_for_type(x509.DNSName) == [spiffe.guard_dns(TRUST_DOMAIN, "mail")]
        assert await code_of(s.authority.enrol("../mail", new_csr(), GUARD)) is Code.INVALID
    assert "guard.enrolled" in s.trail.events()
