"""SPIFFE IDs: what the identities of taskgrant look like, and how they are read (SPIFFE-ID standard, section
2).

One grammar for everything that has an identity::

    spiffe://example.org                                         the trust domain: issues tokens
    spiffe://example.org/agent/researcher                        an agent
    spiffe://example.org/agent/researcher/task/task-1/aud/mail   its credential for one task and server
    spiffe://example.org/guard/mail                              a guard: the audience of tokens

A trust domain is lower-case letters, digits, dots, dashes and underscores; a path segment is those and
upper-case letters, never empty, ``.`` or ``..``. There is no query, fragment, port, user, percent-encoding or
trailing slash. What does not fit is refused, never normalised: two spellings of one identity are how one
workload passes for another.
"""

import re
from dataclasses import dataclass

from taskgrant.model.ids import TaskId

MAX_BYTES = 2048
_MAX_TRUST_DOMAIN = 255
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")
# DNS names compare without regard to case: only one spelling of a server's name may become one.
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")
_SCHEME = "spiffe://"


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """A SPIFFE ID in parts. ``str()`` gives it back exactly as it was read."""

    trust_domain: str
    path: tuple[str, ...] = ()

    def __str__(self) -> str:
        return _SCHEME + "/".join((self.trust_domain, *self.path))


@dataclass(frozen=True, slots=True)
class CredentialId:
    """Whose a credential is. ``agent`` is the agent's SPIFFE ID; ``server`` the one tool server that it is
    for.
    """

    agent: str
    task: TaskId
    server: str

    def __str__(self) -> str:
        return f"{self.agent}/task/{self.task}/aud/{self.server}"


def parse(uri: str) -> SpiffeId:
    """Raises ValueError for anything that is not a SPIFFE ID in the standard's own spelling."""
    if len(uri.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise ValueError(f"a SPIFFE ID has at most {MAX_BYTES} bytes")
    if not uri.startswith(_SCHEME):
        raise ValueError(f"not a SPIFFE ID: {uri!r}")
    domain, *path = uri.removeprefix(_SCHEME).split("/")
    return SpiffeId(_trust_domain(domain), tuple(_segment(part) for part in path))


def build(trust_domain: str, *path: str) -> str:
    """A SPIFFE ID from parts. Raises ValueError when a part, or the whole, is not allowed."""
    uri = str(SpiffeId(_trust_domain(trust_domain), tuple(_segment(part) for part in path)))
    if len(uri) > MAX_BYTES:
        raise ValueError(f"a SPIFFE ID has at most {MAX_BYTES} bytes")
    return uri


def issuer(trust_domain: str) -> str:
    """The trust domain itself: the ``iss`` of its tokens and the identity of its signing certificates."""
    return build(trust_domain)


def agent_id(trust_domain: str, name: str) -> str:
    return build(trust_domain, "agent", name)


def credential_id(agent: str, task: str, server: str) -> str:
    """The URI of a credential. ``agent`` is an agent's SPIFFE ID. Raises ValueError for any other."""
    owner = parse(agent)
    if len(owner.path) != 2 or owner.path[0] != "agent":
        raise ValueError(f"not the SPIFFE ID of an agent: {agent!r}")
    return build(owner.trust_domain, *owner.path, "task", task, "aud", server)


def guard_id(trust_domain: str, server: str) -> str:
    return build(trust_domain, "guard", server)


def audience(trust_domain: str, server: str) -> str:
    """The ``aud`` of tokens for a server: the identity of its guard."""
    return guard_id(trust_domain, server)


def guard_dns(trust_domain: str, server: str) -> str:
    """The DNS name in a guard's certificate, by which a sidecar verifies it wherever it really listens.

    Raises ValueError when the server's name is no lower-case DNS label.
    """
    if not _LABEL.fullmatch(server):
        raise ValueError(f"the server's name {server!r} is no lower-case DNS label")
    return f"{server}.guard.{_trust_domain(trust_domain)}"


def parse_credential_id(uri: str, trust_domain: str) -> CredentialId:
    """Raises ValueError unless ``uri`` is a credential's and of this trust domain."""
    match parse(uri):
        case SpiffeId(domain, ("agent", name, "task", task, "aud", server)) if domain == trust_domain:
            return CredentialId(agent_id(domain, name), TaskId(task), server)
    raise ValueError(f"not a credential of {trust_domain!r}: {uri!r}")


def task_of(uri: str) -> TaskId:
    """The task that a credential's URI names. Raises ValueError when it is no credential's."""
    return parse_credential_id(uri, parse(uri).trust_domain).task


def _trust_domain(text: str) -> str:
    if not _TRUST_DOMAIN.fullmatch(text) or len(text) > _MAX_TRUST_DOMAIN:
        raise ValueError(f"not a trust domain: {text!r}")
    return text


def _segment(text: str) -> str:
    if not _SEGMENT.fullmatch(text) or text in {".", ".."}:
        raise ValueError(f"not a path segment of a SPIFFE ID: {text!r}")
    return text
