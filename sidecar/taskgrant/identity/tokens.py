"""Access tokens: JWTs of type ``at+jwt`` (RFC 9068), ES256 only, each bound to one certificate (RFC 8705,
section 3).

``claims`` says what goes in, ``SigningKey`` signs it, ``verify`` is the one way to believe a token. A token
names the server it is for (``aud``), the task (``txn``), and by ``authorization_details`` (RFC 9396) which
tools it opens under which grant::

    {"iss": "spiffe://example.org", "sub": "user:alice", "client_id": "spiffe://example.org/agent/researcher",
     "aud": "spiffe://example.org/guard/mail", "txn": "task-1", "act": {"sub": "spiffe://example.org/agent/researcher"},
     "cnf": {"x5t#S256": "…"}, "scope": "mail.send", "iat": 0, "nbf": 0, "exp": 60, "jti": "…",
     "authorization_details": [{"type": "tool_call", "locations": ["spiffe://example.org/guard/mail"],
                                "actions": ["send_message"], "identifier": "grant-1"}]}
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from taskgrant.identity import spiffe
from taskgrant.model.ids import GrantId, TaskId
from taskgrant.model.json import Json, JsonObject
from taskgrant.model.time import Instant

TYPE: Final = "at+jwt"
DETAIL_TYPE: Final = "tool_call"
LEEWAY: Final = 5.0  # seconds that two machines' clocks may differ
MAX_BYTES: Final = 16384
_LATEST: Final = 2**40  # seconds since 1970: far in the future, and exact as a float
_ALGORITHMS: Final = ("ES256",)


class TokenFault(Exception):
    """Why a token is not believed. ``reason`` never holds the token or a claim's value."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class GrantEntry:
    """One entry of ``authorization_details``: these tools, under this grant."""

    grant: GrantId
    tools: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """What a believed token says. ``agent`` is the SPIFFE ID that acts, ``subject`` on whose behalf (the
    agent itself for none).
    """

    jti: str
    subject: str
    agent: str
    task: TaskId
    audience: str
    scopes: tuple[str, ...]
    grants: tuple[GrantEntry, ...]
    issued_at: Instant
    expires_at: Instant
    thumbprint: str

    @property
    def on_behalf_of(self) -> str:
        return "" if self.subject == self.agent else self.subject


def claims(
    *,
    agent: str,
    task: str,
    server: str,
    grants: Sequence[tuple[str, Sequence[str]]],
    thumbprint: str,
    jti: str,
    not_before: Instant,
    issued_at: Instant,
    expires_at: Instant,
    on_behalf_of: str = "",
    scopes: Sequence[str] = (),
    ancestors: Sequence[str] = (),
) -> dict[str, Json]:
    """The claims of an access token.

    ``agent`` is a SPIFFE ID, ``grants`` pairs of a grant's ID and its tools, ``thumbprint`` that of the
    certificate that the token is made with. ``ancestors`` are the agents that delegated, nearest first:
    history (RFC 8693, section 4.1), never what is decided on. Times are cut to whole seconds, downwards.
    Raises ValueError when ``agent`` or ``server`` fit no SPIFFE ID.
    """
    domain = spiffe.parse(agent).trust_domain
    audience = spiffe.audience(domain, server)
    actor: dict[str, Json] = {}
    for link in reversed((agent, *ancestors)):
        actor = {"sub": link, "act": actor} if actor else {"sub": link}
    return {
        "iss": spiffe.issuer(domain),
        "sub": on_behalf_of or agent,
        "client_id": agent,
        "aud": audience,
        "iat": int(issued_at),
        "nbf": int(not_before),
        "exp": int(expires_at),
        "jti": jti,
        "scope": " ".join(scopes),
        "txn": task,
        "act": actor,
        "cnf": {"x5t#S256": thumbprint},
        "authorization_details": [
            {"type": DETAIL_TYPE, "locations": [audience], "actions": list(tools), "identifier": grant}
            for grant, tools in grants
        ],
    }


class SigningKey:
    """A P-256 key for tokens, in memory. ``repr`` shows nothing of it."""

    __slots__ = ("_key", "_kid", "_public")

    def __init__(self, key: ECKey) -> None:
        self._key = key
        self._kid = key.thumbprint()
        self._public = {**key.as_dict(private=False), "kid": self._kid, "use": "sig", "alg": "ES256"}

    @classmethod
    def create(cls) -> "SigningKey":
        return cls(ECKey.generate_key("P-256"))

    def sign(self, body: Mapping[str, object]) -> str:
        """A compact JWS (RFC 7515, section 7.1) over the claims."""
        header = {"alg": "ES256", "typ": TYPE, "kid": self._kid}
        payload = json.dumps(body, separators=(",", ":"), allow_nan=False)
        return jws.serialize_compact(header, payload, self._key, algorithms=_ALGORITHMS)

    def jwks(self) -> JsonObject:
        return {"keys": [dict(self._public)]}


class Keys:
    """The public keys of a JWK Set, by ``kid``. Raises ValueError when one of them is not a P-256 key with a
    ``kid``.
    """

    def __init__(self, jwks: Mapping[str, Any]) -> None:
        self._keys: dict[str, ECKey] = {}
        entries = jwks.get("keys")
        if not isinstance(entries, Sequence) or isinstance(entries, str):
            raise ValueError("not a JWK Set: no member 'keys'")
        for entry in entries:
            if (
                not isinstance(entry, Mapping)
                or not isinstance(entry.get("kid"), str)
                or entry.get("crv") != "P-256"
            ):
                raise ValueError("a JWK Set for tokens has P-256 keys with a 'kid' only")
            try:
                self._keys[entry["kid"]] = ECKey.import_key(
                    {name: entry[name] for name in ("kty", "crv", "x", "y")}
                )
            except (JoseError, KeyError, ValueError) as error:
                raise ValueError(f"a key of the JWK Set cannot be used: {error}") from error

    def get(self, kid: str) -> ECKey | None:
        return self._keys.get(kid)


def verify(
    token: str, jwks: Keys | Mapping[str, Any], audience: str, now: Instant, thumbprint: str
) -> VerifiedToken:
    """What the token says, if it may be believed by ``audience`` from the peer whose certificate has this
    thumbprint.

    Raises TokenFault. Hand in ``Keys`` where many tokens are verified against one set.
    """
    verified = read(token, jwks, audience, now)
    if not hmac.compare_digest(verified.thumbprint.encode(), thumbprint.encode()):
        raise TokenFault("the token is bound to another certificate")
    return verified


def read(token: str, jwks: Keys | Mapping[str, Any], audience: str, now: Instant) -> VerifiedToken:
    """``verify`` without the binding: for introspection, whose asker compares ``cnf`` itself. Raises
    TokenFault.
    """
    keys = jwks if isinstance(jwks, Keys) else Keys(jwks)
    body = _payload(token, keys)
    if body.get("aud") != audience:
        raise TokenFault("the token is for another audience")
    if body.get("iss") != spiffe.issuer(spiffe.parse(audience).trust_domain):
        raise TokenFault("the token is from another issuer")
    issued, starts, expires = (_time(body, name) for name in ("iat", "nbf", "exp"))
    if starts > now + LEEWAY or issued > now + LEEWAY:
        raise TokenFault("the token is not valid yet")
    if expires + LEEWAY <= now:
        raise TokenFault("the token has expired")
    actor, confirmation = body.get("act"), body.get("cnf")
    agent = _text(body, "client_id")
    if not isinstance(actor, dict) or actor.get("sub") != agent:
        raise TokenFault("the token's actor is not its client")
    if not isinstance(confirmation, dict) or set(confirmation) != {"x5t#S256"}:
        raise TokenFault("the token is not bound to a certificate")
    scope = body.get("scope")
    if not isinstance(scope, str):
        raise TokenFault("the token's scope is no string")
    return VerifiedToken(
        jti=_text(body, "jti"),
        subject=_text(body, "sub"),
        agent=agent,
        task=TaskId(_text(body, "txn")),
        audience=audience,
        scopes=tuple(scope.split()),
        grants=_grants(body.get("authorization_details"), audience),
        issued_at=issued,
        expires_at=expires,
        thumbprint=_text(confirmation, "x5t#S256"),
    )


def thumbprint(der: bytes) -> str:
    """``x5t#S256`` of a certificate (RFC 8705, section 3.1): base64url, no padding, of the SHA-256 of its DER
    form.
    """
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()


def _payload(token: str, keys: Keys) -> dict[str, Any]:
    if len(token) > MAX_BYTES or not token.isascii():
        raise TokenFault("the token is too long or not ASCII")
    try:
        signature = jws.extract_compact(token.encode())
        header = signature.protected
        if (
            header.get("alg") not in _ALGORITHMS
            or header.get("typ") != TYPE
            or set(header) != {"alg", "typ", "kid"}
        ):
            raise TokenFault("the token's header is not one of ours")
        key = keys.get(header["kid"]) if isinstance(header["kid"], str) else None
        if key is None:
            raise TokenFault("the token is signed with a key that is not known")
        if not jws.validate_compact(signature, key, algorithms=_ALGORITHMS):
            raise TokenFault("the token's signature is wrong")
        body = json.loads(signature.payload, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (JoseError, ValueError, TypeError, RecursionError) as error:
        raise TokenFault("the token cannot be read") from error
    if not isinstance(body, dict):
        raise TokenFault("the token's claims are no object")
    return body


def _grants(details: object, audience: str) -> tuple[GrantEntry, ...]:
    if not isinstance(details, list) or not details:
        raise TokenFault("the token has no authorization details")
    entries = []
    for detail in details:
        match detail:
            case {
                "type": t,
                "locations": [location],
                "actions": list(tools),
                "identifier": str(grant),
                **rest,
            } if t == DETAIL_TYPE and location == audience and not rest and grant and tools:
                if not all(isinstance(tool, str) for tool in tools):
                    raise TokenFault("the token's authorization details name something that is no tool")
                entries.append(GrantEntry(GrantId(grant), tuple(tools)))
            case _:
                # RFC 9396, section 5: an unknown type or member may restrict what the others give.
                raise TokenFault("the token has authorization details that are not understood")
    return tuple(entries)


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise TokenFault(f"the token has no {name}")
    return value


def _time(body: Mapping[str, Any], name: str) -> Instant:
    value = body.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _LATEST:
        raise TokenFault(f"the token has no {name}")
    return Instant(float(value))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a member occurs twice")
    return made


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
