import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey, OctKey

from taskgrant.identity import tokens
from taskgrant.identity.tokens import Keys, TokenFault
from taskgrant.model.time import Instant
from tests.identity.support import AGENT, Domain, SetClock

AUDIENCE = "spiffe://example.org/guard/mail"
DETAIL = {"type": "tool_call", "locations": [AUDIENCE], "actions": ["send_message"], "identifier": "grant-1"}


def test_a_token_says_what_it_was_made_of(domain: Domain, clock: SetClock) -> None:
    made = domain.credential(grants=(("grant-1", ("send_message", "list")), ("grant-2", ("search",))))
    thumbprint = tokens.thumbprint(made.leaf)
    read = tokens.verify(made.token, domain.signer.jwks(), AUDIENCE, clock.now(), thumbprint)
    assert read.jti == made.jti
    assert (read.subject, read.agent, read.on_behalf_of) == ("user:alice", AGENT, "user:alice")
    assert read.task == "task-1"
    assert [(entry.grant, entry.tools) for entry in read.grants] == [
        ("grant-1", ("send_message", "list")),
        ("grant-2", ("search",)),
    ]
    assert (read.issued_at, read.expires_at) == (clock.at, clock.at + 120)
    assert read.thumbprint == thumbprint


def test_an_agent_that_acts_for_itself_acts_on_nobodys_behalf(domain: Domain, clock: SetClock) -> None:
    made = domain.credential(on_behalf_of="")
    read = tokens.read(made.token, domain.signer.jwks(), AUDIENCE, clock.now())
    assert (read.subject, read.on_behalf_of) == (AGENT, "")


def test_delegation_nests_the_actors_nearest_first() -> None:
    now = Instant(1000.9)
    parent, top = "spiffe://example.org/agent/parent", "spiffe://example.org/agent/top"
    body = tokens.claims(
        agent=AGENT,
        task="t",
        server="mail",
        grants=[],
        thumbprint="x",
        jti="j",
        not_before=now,
        issued_at=now,
        expires_at=now,
        scopes=["a", "b"],
        ancestors=[parent, top],
    )
    assert body["act"] == {"sub": AGENT, "act": {"sub": parent, "act": {"sub": top}}}
    assert body["scope"] == "a b"
    assert body["exp"] == 1000


@pytest.mark.parametrize(
    "changed, reason",
    [
        ({"aud": "spiffe://example.org/guard/files"}, "another audience"),
        ({"aud": [AUDIENCE]}, "another audience"),
        ({"iss": "spiffe://other.org"}, "another issuer"),
        ({"client_id": "spiffe://example.org/agent/other"}, "actor"),
        ({"act": None}, "actor"),
        ({"cnf": None}, "not bound"),
        ({"cnf": {"jkt": "x"}}, "not bound"),
        ({"cnf": {"x5t#S256": ""}}, "no x5t#S256"),
        ({"cnf": {"x5t#S256": "another"}}, "another certificate"),
        ({"txn": ""}, "no txn"),
        ({"jti": 5}, "no jti"),
        ({"sub": None}, "no sub"),
        ({"scope": ["a"]}, "scope"),
        ({"exp": None}, "no exp"),
        ({"exp": True}, "no exp"),
        ({"exp": "9999999999"}, "no exp"),
        ({"exp": 10**400}, "no exp"),
        ({"exp": -1}, "no exp"),
        ({"nbf": 9_999_999_999}, "not valid yet"),
        ({"iat": 9_999_999_999}, "not valid yet"),
        ({"exp": 1}, "expired"),
        ({"authorization_details": None}, "no authorization details"),
        ({"authorization_details": []}, "no authorization details"),
        ({"authorization_details": [{**DETAIL, "type": "payment"}]}, "not understood"),
        ({"authorization_details": [DETAIL, {**DETAIL, "type": "other"}]}, "not understood"),
        ({"authorization_details": [{**DETAIL, "privileges": ["admin"]}]}, "not understood"),
        (
            {"authorization_details": [{**DETAIL, "locations": ["spiffe://example.org/guard/files"]}]},
            "not understood",
        ),
        ({"authorization_details": [{**DETAIL, "actions": []}]}, "not understood"),
        ({"authorization_details": [{**DETAIL, "actions": [5]}]}, "no tool"),
        ({"authorization_details": ["tool_call"]}, "not understood"),
    ],
)
def test_a_token_with_another_claim_is_not_believed(
    domain: Domain, clock: SetClock, changed: dict[str, object], reason: str
) -> None:
    made = domain.credential(**changed)  # type: ignore[arg-type]
    with pytest.raises(TokenFault, match=reason):
        tokens.verify(made.token, domain.signer.jwks(), AUDIENCE, clock.now(), tokens.thumbprint(made.leaf))


@pytest.mark.parametrize("offset, believed", [(-6, False), (-4, True), (124, True), (125, False)])
def test_clocks_may_differ_by_five_seconds(
    domain: Domain, clock: SetClock, offset: float, believed: bool
) -> None:
    made = domain.credential()
    now = Instant(clock.at + offset)
    if believed:
        tokens.read(made.token, domain.signer.jwks(), AUDIENCE, now)
    else:
        with pytest.raises(TokenFault):
            tokens.read(made.token, domain.signer.jwks(), AUDIENCE, now)


def _signed(header: dict[str, object], payload: str, key: ECKey | OctKey) -> str:
    return jws.serialize_compact(header, payload, key, algorithms=["ES256", "HS256"])


def test_only_our_header_is_accepted(domain: Domain, clock: SetClock) -> None:
    """Another algorithm, type, key or header member: each is refused before any claim is looked at."""
    key = ECKey.generate_key("P-256")
    kid = key.thumbprint()
    jwks = {"keys": [{**key.as_dict(private=False), "kid": kid}]}
    body = json.dumps(domain.credential().claims)
    good: dict[str, object] = {"alg": "ES256", "typ": "at+jwt", "kid": kid}
    assert tokens.read(_signed(good, body, key), jwks, AUDIENCE, clock.now()).task == "task-1"
    secret = OctKey.import_key(
        json.dumps(jwks).ljust(64)
    )  # the classic confusion: the public key as a shared secret
    unsigned = base64.urlsafe_b64encode(
        b'{"alg":"none","typ":"at+jwt","kid":"' + kid.encode() + b'"}'
    ).decode()
    wrong = [
        _signed({**good, "typ": "JWT"}, body, key),
        _signed({"alg": "ES256", "kid": kid}, body, key),
        _signed({"alg": "ES256", "typ": "at+jwt"}, body, key),
        _signed({**good, "kid": "other"}, body, key),
        _signed({**good, "jwk": key.as_dict(private=False)}, body, key),
        _signed({**good, "alg": "HS256"}, body, secret),
        _signed(good, body, ECKey.generate_key("P-256")),
        _signed(good, "[]", key),
        _signed(good, "no JSON", key),
        _signed(good, '{"aud": "a", "aud": "b"}', key),
        _signed(good, '{"exp": NaN}', key),
        _signed(good, "[" * 100_000, key),
        unsigned.rstrip("=") + "." + base64.urlsafe_b64encode(body.encode()).decode().rstrip("=") + ".",
        "", "a.b.c", "ä", "x" * (tokens.MAX_BYTES + 1),
    ]  # fmt: skip
    for token in wrong:
        with pytest.raises(TokenFault) as caught:
            tokens.read(token, jwks, AUDIENCE, clock.now())
        assert token == "" or token not in caught.value.reason


NOT_A_KEY = {"kid": "a", "crv": "P-256", "kty": "EC", "x": "!", "y": "!"}


@pytest.mark.parametrize(
    "jwks",
    [
        {},
        {"keys": "none"},
        {"keys": [5]},
        {"keys": [{"kty": "EC", "crv": "P-256"}]},
        {"keys": [{"kid": "a", "crv": "P-384"}]},
        {"keys": [{"kid": "a", "crv": "P-256"}]},
        {"keys": [NOT_A_KEY]},
    ],
)
def test_what_is_no_key_set_is_refused(jwks: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"JWK"):
        Keys(jwks)


def test_the_key_set_holds_no_private_part(domain: Domain) -> None:
    keys = domain.signer.jwks()["keys"]
    assert isinstance(keys, list)
    assert [set(entry) for entry in keys] == [{"kty", "crv", "x", "y", "kid", "use", "alg"}]
    assert "SigningKey object" in repr(tokens.SigningKey.create())


@given(st.text(max_size=200), st.integers(0, 2))
def test_a_token_that_was_tampered_with_is_not_believed(part: str, which: int) -> None:
    key = tokens.SigningKey.create()
    parts = key.sign({"aud": AUDIENCE}).split(".")
    parts[which] = part
    with pytest.raises(TokenFault):
        tokens.read(".".join(parts), key.jwks(), AUDIENCE, Instant(0))
