"""Credentials: a certificate and a token bound to it, made together against a signing request, just in time.

They are made only while a live grant covers the audience, which is read afresh at signing and again once the credential
is recorded; they outlive neither the last of the covering grants nor the task. What is kept of a token is its SHA-256
and its claims: a token is known again by the former, and introspected by the latter (RFC 7662, section 2.2).
"""

import secrets
import ssl

from taskgrant.authority import lifecycle
from taskgrant.authority.credentials import digest
from taskgrant.authority.engine import Engine
from taskgrant.authority.store import statements
from taskgrant.authority.store.statements import Credential
from taskgrant.errors import Refused
from taskgrant.identity import csr as requests
from taskgrant.identity import spiffe, tokens
from taskgrant.model.codes import Code
from taskgrant.model.credential import Enrolled, Issued
from taskgrant.model.event import EventKind
from taskgrant.model.grant import Grant
from taskgrant.model.ids import TaskId
from taskgrant.model.json import JsonObject
from taskgrant.model.ports import LeafProfile, Signer
from taskgrant.model.principal import Principal
from taskgrant.model.record import Record
from taskgrant.model.task import Task
from taskgrant.model.time import Instant, to_rfc3339

_END = b"-----END CERTIFICATE-----\n"
_SHORTEST_SECONDS = 1.0


class Issuer:
    def __init__(self, engine: Engine, signer: Signer, trust_domain: str) -> None:
        self._engine = engine
        self._signer = signer
        self._trust_domain = trust_domain

    async def issue(self, task_id: TaskId, server: str, csr: bytes) -> Issued:
        """Raises ``Refused``: task_ended, no_grant, frozen, invalid, audit_unavailable."""
        engine = self._engine
        public_key = _read(csr)
        now = engine.clock.now()
        task, covering = self._covering(task_id, server, now)
        latest = max(grant.expires_at for grant in covering)
        # X.509 and JWT have whole seconds; rounded down, so that the pair never outlives what it stands for.
        not_after = Instant(int(min(now + engine.config.credential_ttl, latest, task.deadline)))
        if not_after - now < _SHORTEST_SECONDS:
            raise Refused(Code.GRANT_EXPIRED, "what is left of the grant is too short for a credential")
        not_before = Instant(now - engine.config.credential_backdate)
        serial = _new_serial()
        profile = LeafProfile(self._uri(task, server), not_before, not_after, serial)
        certificate = self._signer.certificate(profile, public_key)
        jti = secrets.token_hex(16)
        claims = tokens.claims(
            agent=task.agent, task=task.id, server=server,
            grants=[(grant.id, grant.tools) for grant in covering],
            thumbprint=tokens.thumbprint(_leaf(certificate)), jti=jti, not_before=not_before, issued_at=now,
            expires_at=not_after, on_behalf_of=task.on_behalf_of,
        )  # fmt: skip
        token = self._signer.token(claims)
        grants = tuple(grant.id for grant in covering)
        # JSON by construction; the port's type says less than the value.
        credential = Credential(
            f"{serial:x}", jti, task.id, server, grants, digest(token), claims, not_after
        )  # fmt: skip
        # Known before it is stored: a revocation that comes meanwhile takes it along.
        engine.credentials.add(credential, now)
        await engine.store.writer.submit([statements.save_credential(credential)], [_issued(credential, now)])
        current = engine.credentials.get(credential.serial)
        if current is None or current.revoked_at is not None:
            raise Refused(Code.REVOKED, "its grant ended while the credential was being made")
        engine.events.publish(EventKind.CREDENTIAL, _described(credential))
        return Issued(
            task.id,
            server,
            certificate,
            token,
            self._signer.bundle(),
            credential.serial,
            jti,
            grants,
            not_after,
        )

    def _covering(self, task_id: TaskId, server: str, now: Instant) -> tuple[Task, list[Grant]]:
        self._engine.check_fence()
        life = lifecycle.at(self._engine.registry.require(task_id), now)
        if not life.task.live:
            raise Refused(Code.TASK_ENDED, f"the task is {life.task.state.value}")
        self._engine.freezes.check(life.task, [(server, None)])
        covering = [grant for grant in life.grants.values() if grant.server == server and grant.state.live]
        if not covering:
            raise Refused(Code.NO_GRANT, f"no live grant of the task is for {server!r}")
        return life.task, covering

    def _uri(self, task: Task, server: str) -> str:
        try:
            return spiffe.credential_id(task.agent, task.id, server)
        except ValueError as error:
            raise Refused(Code.INVALID, str(error)) from error

    def enrol(self, server: str, csr: bytes, by: Principal) -> Enrolled:
        """A server certificate for the guard in front of ``server``. Raises ``Refused`` (invalid)."""
        engine = self._engine
        engine.check_fence()
        public_key = _read(csr)
        now = engine.clock.now()
        not_after = Instant(int(now + engine.config.guard_ttl))
        serial = _new_serial()
        try:
            uri, dns = (
                spiffe.guard_id(self._trust_domain, server),
                spiffe.guard_dns(self._trust_domain, server),
            )
        except ValueError as error:
            raise Refused(Code.INVALID, str(error)) from error
        profile = LeafProfile(
            uri, Instant(now - engine.config.credential_backdate), not_after, serial, (dns,)
        )
        certificate = self._signer.certificate(profile, public_key)
        fields = {"server": server, "by": by.id, "serial": f"{serial:x}", "not_after": to_rfc3339(not_after)}
        engine.store.writer.post((), [Record("guard.enrolled", now, fields)])
        return Enrolled(server, certificate, self._signer.bundle(), self.jwks(), not_after)

    def introspect(self, token: str, audience: str) -> JsonObject:
        """``audience`` is the server's name, or the audience of its tokens."""
        engine = self._engine
        now = engine.clock.now()
        credential = engine.credentials.find(token)
        if engine.registry.fenced or credential is None or credential.revoked_at is not None:
            return {"active": False}
        if audience not in (credential.server, spiffe.audience(self._trust_domain, credential.server)):
            return {"active": False}
        life = engine.registry.lives.get(credential.task)
        if life is None or now >= credential.not_after:
            return {"active": False}
        life = lifecycle.at(life, now)
        if not all(life.grants[grant].state.live for grant in credential.grants):
            return {"active": False}
        return {"active": True, "token_type": "Bearer", **credential.claims}

    def bundle(self) -> bytes:
        return self._signer.bundle()

    def jwks(self) -> JsonObject:
        return self._signer.jwks()

    def crl(self) -> bytes:
        now = self._engine.clock.now()
        revoked = self._engine.credentials.revoked(now)
        return self._signer.crl([(each.serial, each.revoked_at or now) for each in revoked], now)


def _read(csr: bytes) -> bytes:
    try:
        return requests.read_csr(csr)
    except ValueError as error:
        raise Refused(Code.INVALID, str(error)) from error


def _new_serial() -> int:
    """159 random bits (RFC 5280, section 4.1.2.2: positive, at most 20 octets)."""
    return secrets.randbits(158) | 1 << 158


def _leaf(chain: bytes) -> bytes:
    first, end, _ = chain.partition(_END)
    return ssl.PEM_cert_to_DER_cert((first + end).decode("ascii"))


def _issued(credential: Credential, now: Instant) -> Record:
    return Record("credential.issued", now, _described(credential))


def _described(credential: Credential) -> JsonObject:
    return {
        "serial": credential.serial,
        "jti": credential.jti,
        "task": credential.task,
        "server": credential.server,
        "grants": list(credential.grants),
        "not_after": to_rfc3339(credential.not_after),
    }
