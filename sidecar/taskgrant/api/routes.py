"""The one table of the control API: every route with its roles, its body and its answer. The description
and the
tests are made from it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web
from pydantic import BaseModel

from taskgrant.api import shapes
from taskgrant.api.handlers import Handlers
from taskgrant.model.principal import Role

Handler = Callable[[Handlers, web.Request], Awaitable[web.StreamResponse]]

_ORCHESTRATOR = frozenset({Role.ORCHESTRATOR})
_READERS = frozenset({Role.ORCHESTRATOR, Role.APPROVER, Role.ADMIN})
_APPROVER = frozenset({Role.APPROVER})
_ADMIN = frozenset({Role.ADMIN})
_GUARD = frozenset({Role.GUARD})
_ENFORCERS = frozenset({Role.GUARD, Role.SIDECAR})
_ALL = frozenset(Role)

_JSON = "application/json"
_PEM = "application/x-pem-file"


@dataclass(frozen=True, slots=True)
class Route:
    """``query`` names the parameters; ``replays``: takes an Idempotency-Key. ``answer`` None: no JSON
    of a fixed shape."""

    method: str
    path: str
    handler: Handler
    summary: str
    roles: frozenset[Role]
    body: type[BaseModel] | None = None
    answer: type[BaseModel] | None = None
    status: int = 200
    media: str = _JSON
    query: tuple[str, ...] = ()
    replays: bool = False

    @property
    def name(self) -> str:
        """The operationId."""
        return self.handler.__name__


_PAGED = ("after", "limit")

ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        "/v1/tasks",
        Handlers.start_task,
        "Start a task; the handle is shown in this answer only",
        _ORCHESTRATOR,
        shapes.TaskRequest,
        shapes.StartedDocument,
        status=201,
        replays=True,
    ),
    Route(
        "GET", "/v1/tasks", Handlers.list_tasks, "List tasks", _READERS, answer=shapes.TaskPage, query=_PAGED
    ),
    Route(
        "GET",
        "/v1/tasks/{id}",
        Handlers.show_task,
        "Show a task and its grants",
        _READERS,
        answer=shapes.TaskWithGrants,
    ),
    Route(
        "GET",
        "/v1/tasks/{id}/report",
        Handlers.report_task,
        "Granted against used",
        _READERS,
        answer=shapes.ReportDocument,
    ),
    Route(
        "POST",
        "/v1/tasks/{id}/complete",
        Handlers.complete_task,
        "Complete a task and sever all that it had",
        _ORCHESTRATOR,
        shapes.Nothing,
        shapes.EndedDocument,
    ),
    Route(
        "POST",
        "/v1/tasks/{id}/cancel",
        Handlers.cancel_task,
        "Cancel a task and sever all that it had",
        _ORCHESTRATOR | _ADMIN,
        shapes.Nothing,
        shapes.EndedDocument,
    ),
    Route(
        "POST",
        "/v1/tasks/{id}/handle",
        Handlers.rotate_handle,
        "Give a task a new handle; the old one is dead",
        _ORCHESTRATOR,
        shapes.Nothing,
        shapes.HandleDocument,
    ),
    Route(
        "POST",
        "/v1/tasks/{id}/grants",
        Handlers.request_grants,
        "Ask for more grants in a running task",
        _ORCHESTRATOR,
        shapes.GrantsRequest,
        shapes.GrantsDocument,
        status=201,
        replays=True,
    ),
    Route(
        "GET",
        "/v1/grants",
        Handlers.list_grants,
        "List grants",
        _READERS,
        answer=shapes.GrantPage,
        query=_PAGED,
    ),
    Route(
        "GET", "/v1/grants/{id}", Handlers.show_grant, "Show a grant", _READERS, answer=shapes.GrantDocument
    ),
    Route(
        "POST",
        "/v1/grants/{id}/approve",
        Handlers.approve_grant,
        "Approve a pending grant that somebody else asked for",
        _APPROVER,
        shapes.Reason,
        shapes.EndedDocument,
    ),
    Route(
        "POST",
        "/v1/grants/{id}/reject",
        Handlers.reject_grant,
        "Reject a pending grant",
        _APPROVER,
        shapes.Reason,
        shapes.EndedDocument,
    ),
    Route(
        "POST",
        "/v1/grants/{id}/revoke",
        Handlers.revoke_grant,
        "Revoke a grant and sever its calls",
        _ORCHESTRATOR | _ADMIN,
        shapes.Reason,
        shapes.EndedDocument,
    ),
    Route(
        "POST",
        "/v1/freeze",
        Handlers.freeze,
        "Kill switch: nothing in scope is started, approved, issued or called",
        _ADMIN,
        shapes.ScopeRequest,
        shapes.EndedDocument,
    ),
    Route(
        "POST",
        "/v1/unfreeze",
        Handlers.unfreeze,
        "Lift a freeze; nothing that ended comes back",
        _ADMIN,
        shapes.ScopeRequest,
        shapes.EndedDocument,
    ),
    Route(
        "GET",
        "/v1/events",
        Handlers.events,
        "Snapshot, changes and heartbeats; resumed by Last-Event-ID",
        _ALL,
        media="text/event-stream",
        query=("after", "subscriber"),
    ),
    Route(
        "POST",
        "/v1/events/ack",
        Handlers.acknowledge,
        "A named subscriber has applied every event up to a cursor",
        _ENFORCERS,
        shapes.Acknowledgement,
        status=204,
    ),
    Route(
        "POST",
        "/v1/guards/{server}/enrol",
        Handlers.enrol,
        "A server certificate for the guard in front of a server",
        _GUARD,
        shapes.SigningRequest,
        shapes.EnrolledDocument,
    ),
    Route(
        "POST",
        "/v1/credentials",
        Handlers.issue,
        "A certificate and a token for a task at one audience",
        frozenset({Role.SIDECAR}),
        shapes.CredentialRequest,
        shapes.IssuedDocument,
    ),
    Route(
        "POST",
        "/v1/introspect",
        Handlers.introspect,
        "Token introspection (RFC 7662)",
        _GUARD,
        shapes.IntrospectionRequest,
    ),
    Route("GET", "/v1/jwks", Handlers.jwks, "Token keys (RFC 7517)", _ALL, media="application/jwk-set+json"),
    Route("GET", "/v1/bundle", Handlers.bundle, "Trust bundle", _ALL, media=_PEM),
    Route("GET", "/v1/crl", Handlers.crl, "Certificate revocation list (RFC 5280)", _ALL, media=_PEM),
    Route("GET", "/openapi.json", Handlers.describe, "This description", _ALL),
)
