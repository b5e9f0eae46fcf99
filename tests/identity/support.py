"""A trust domain in memory, and a clock that a test sets."""

import secrets
from dataclasses import dataclass, field
from typing import Any

from taskgrant.identity import certificates, csr, spiffe, tokens
from taskgrant.identity.csr import KeyPair
from taskgrant.identity.signer import LocalSigner
from taskgrant.model.ports import LeafProfile
from taskgrant.model.time import Instant

DOMAIN = "example.org"
AGENT = spiffe.agent_id(DOMAIN, "researcher")


@dataclass
class SetClock:
    """A clock that stands still until it is moved."""

    at: float

    def now(self) -> Instant:
        return Instant(self.at)


@dataclass
class Credential:
    """What a sidecar would hold for one task and one server."""

    key: KeyPair
    chain: bytes
    claims: dict[str, Any]
    token: str
    serial: str
    jti: str

    @property
    def leaf(self) -> bytes:
        return certificates.leaf_of(self.chain)


@dataclass
class Domain:
    """Signs credentials and guards' certificates as an authority would."""

    clock: SetClock
    signer: LocalSigner = field(init=False)

    def __post_init__(self) -> None:
        self.signer = LocalSigner.create(DOMAIN, self.clock)

    def credential(
        self,
        *,
        task: str = "task-1",
        server: str = "mail",
        grants: tuple[tuple[str, tuple[str, ...]], ...] = (("grant-1", ("send_message",)),),
        life: float = 120.0,
        uri: str | None = None,
        on_behalf_of: str = "user:alice",
        **changed: Any,
    ) -> Credential:
        """A certificate with its token. ``changed`` replaces claims of the token, so that a test can make a
        wrong one.
        """
        now = self.clock.now()
        key, serial, jti = csr.new_key(), secrets.randbits(120) | 1, secrets.token_hex(8)
        until = Instant(now + life)
        profile = LeafProfile(
            uri=uri or spiffe.credential_id(AGENT, task, server),
            not_before=Instant(now - 60),
            not_after=until,
            serial=serial,
        )
        chain = self.signer.certificate(profile, key.public())
        claims = tokens.claims(
            agent=AGENT,
            task=task,
            server=server,
            grants=grants,
            thumbprint=tokens.thumbprint(certificates.leaf_of(chain)),
            jti=jti,
            not_before=Instant(now - 60),
            issued_at=now,
            expires_at=until,
            on_behalf_of=on_behalf_of,
        )
        claims.update(changed)
        return Credential(key, chain, claims, self.signer.token(claims), format(serial, "x"), jti)

    def guard(self, key: KeyPair, server: str = "mail", life: float = 3600.0) -> bytes:
        """A guard's server certificate."""
        now = self.clock.now()
        profile = LeafProfile(
            uri=spiffe.guard_id(DOMAIN, server),
            not_before=Instant(now - 60),
            not_after=Instant(now + life),
            serial=secrets.randbits(120) | 1,
            dns=(spiffe.guard_dns(DOMAIN, server),),
        )
        return self.signer.certificate(profile, key.public())
