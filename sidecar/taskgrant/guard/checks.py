"""May this request pass? Pure: who is on the connection, what the token says, what was asked, and what has
ended.

In this order, and the first that fails is the answer:

=====================================================  ====================  ======
the authority was heard within the staleness bound     authority_unavailable 503
the certificate is a credential, for this server, and  credential_refused    401
has not run out by the time of the request
the token is believed and bound to that certificate    credential_refused    401
token and certificate say the same agent and task      credential_refused    401
task, certificate and token have not ended             revoked               401
a grant in the token that has not ended covers it      revoked / no_grant    401/403
=====================================================  ====================  ======

A call of a tool is covered by the entries that name the tool; everything else by any entry.
"""

import hmac
from dataclasses import dataclass

from taskgrant.guard.revocations import RevocationState
from taskgrant.identity.certificates import CertificateFault, Peer
from taskgrant.identity.tokens import TokenFault, VerifiedToken
from taskgrant.model.call import Call, Kind, Refusal
from taskgrant.model.codes import Code
from taskgrant.model.time import Instant


@dataclass(frozen=True, slots=True)
class Bearer:
    """A credential that is live: who presents it, and what its token says."""

    peer: Peer
    token: VerifiedToken


@dataclass(frozen=True, slots=True)
class Verified:
    """A request that may pass. ``grants`` are those that cover it and have not ended: it may run while one of
    them lives.
    """

    bearer: Bearer
    grants: tuple[str, ...]


def credential(
    peer: Peer | CertificateFault,
    token: VerifiedToken | TokenFault,
    server: str,
    revoked: RevocationState,
    now: Instant,
) -> Bearer | Refusal:
    """What can be said before the body is read: whoever fails here costs no more than that."""
    if not revoked.fresh(now):
        return Refusal(Code.AUTHORITY_UNAVAILABLE, "the guard does not know what is revoked")
    if isinstance(peer, CertificateFault):
        return _refused(peer.reason)
    if peer.id.server != server:
        return _refused("the certificate is for another server")
    # A connection may outlive the certificate that it was opened with: what counts is the time of the request.
    if not peer.not_before <= now < peer.not_after:
        return _refused("the certificate has run out")
    if isinstance(token, TokenFault):
        return _refused(token.reason)
    if not hmac.compare_digest(token.thumbprint.encode(), peer.thumbprint.encode()):
        return _refused("the token is bound to another certificate")
    if token.task != peer.id.task or token.agent != peer.id.agent:
        return _refused("the token and the certificate are of different tasks")
    if revoked.credential(token.task, peer.serial, token.jti):
        return Refusal(Code.REVOKED, "the task or its credential has ended")
    return Bearer(peer, token)


def check(
    peer: Peer | CertificateFault,
    token: VerifiedToken | TokenFault,
    call: Call,
    revoked: RevocationState,
    now: Instant,
) -> Verified | Refusal:
    """The whole check of one request. Never raises."""
    bearer = credential(peer, token, call.server, revoked, now)
    if isinstance(bearer, Refusal):
        return bearer
    entries = bearer.token.grants
    if call.kind is Kind.TOOL:
        entries = tuple(entry for entry in entries if call.tool is not None and call.tool in entry.tools)
        if not entries:
            return Refusal(Code.NO_GRANT, "no grant of this credential names this tool")
    live = tuple(entry.grant for entry in entries if not revoked.grant(entry.grant))
    if not live:
        return Refusal(Code.REVOKED, "the grant has ended")
    return Verified(bearer, live)


def _refused(reason: str) -> Refusal:
    return Refusal(Code.CREDENTIAL_REFUSED, reason)
