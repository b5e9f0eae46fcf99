"""Credentials: per task and audience, a certificate and an access token bound to it, made and ending together."""

from dataclasses import dataclass

from taskgrant.model.ids import GrantId, TaskId
from taskgrant.model.json import JsonObject
from taskgrant.model.time import Instant


@dataclass(frozen=True, slots=True)
class Issued:
    """What the authority hands out for a CSR: PEM chain (leaf first, without the root), token, and what they stand for.

    ``bundle`` is the PEM trust bundle of the trust domain. ``serial`` is lower-case hex without leading zeros.
    """

    task: TaskId
    audience: str
    certificate: bytes
    token: str
    bundle: bytes
    serial: str
    jti: str
    grants: tuple[GrantId, ...]
    not_after: Instant


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What a guard gets for its CSR: its server certificate, and what it needs to check credentials with."""

    server: str
    certificate: bytes
    bundle: bytes
    jwks: JsonObject
    not_after: Instant
