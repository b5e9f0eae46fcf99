"""The bodies of the control API as pydantic models: what is accepted, and what the description says of the
answers.

Requests are validated with these (unknown members are faults). Answers are built by ``model.documents``; a
test holds each of them to the model named here.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from taskgrant.model.event import Scope, ScopeKind
from taskgrant.model.grant import GrantSpec, GrantState
from taskgrant.model.task import TaskSpec, TaskState

Text = Annotated[str, Field(max_length=2000)]
Name = Annotated[str, Field(min_length=1, max_length=256)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GrantRequest(Shape):
    """What is asked for: tools of one server, with which arguments, how often, until when."""

    server: Name = Field(description="A server of the catalogue.")
    tools: list[Name] = Field(min_length=1, max_length=256)
    arguments: dict[str, Any] | None = Field(
        default=None, description="A JSON Schema of the closed fragment; without it no argument is admitted."
    )
    max_uses: Annotated[int, Field(ge=1)] | None = None
    expires_in: Seconds | None = Field(default=None, description="Seconds; the configured maximum if absent.")
    idle_timeout: Seconds | None = Field(default=None, description="Seconds without a tool call.")
    reason: Text = ""

    def spec(self) -> GrantSpec:
        return GrantSpec(**{**dict(self), "tools": tuple(self.tools)})


class TaskRequest(Shape):
    """What an orchestrator asks for when it starts a task."""

    purpose: Annotated[str, Field(min_length=1, max_length=2000)]
    type: Annotated[str, Field(max_length=256)] = ""
    params: dict[str, Any] = Field(default_factory=dict, description="For the template that ``type`` names.")
    on_behalf_of: Annotated[str, Field(max_length=256)] = ""
    session: Annotated[str, Field(max_length=256)] = ""
    expires_in: Seconds | None = Field(default=None, description="Seconds; the configured maximum if absent.")
    idle_timeout: Seconds | None = Field(default=None, description="Seconds without a tool call.")
    uid: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    grants: list[GrantRequest] = Field(default_factory=list, max_length=256)

    def spec(self) -> TaskSpec:
        return TaskSpec(**{**dict(self), "grants": tuple(one.spec() for one in self.grants)})


class GrantsRequest(Shape):
    """Grants to add to a running task."""

    grants: list[GrantRequest] = Field(min_length=1, max_length=256)


class Reason(Shape):
    """Why, for the record and for people. The body may be absent."""

    reason: Text = ""


class Nothing(Shape):
    """No member; the body may be absent."""


class ScopeRequest(Shape):
    """What to freeze or unfreeze: exactly one of the five."""

    agent: Name | None = Field(default=None, description="A SPIFFE ID.")
    task: Name | None = None
    tool: Name | None = Field(default=None, description="``server`` or ``server/tool``.")
    session: Name | None = None
    all: Literal[True] | None = None
    reason: Text = ""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(self._named()) != 1:
            raise ValueError("name exactly one of agent, task, tool, session and all")
        return self

    def _named(self) -> list[str]:
        return [name for name, value in dict(self).items() if name != "reason" and value is not None]

    def scope(self) -> Scope:
        kind = ScopeKind(self._named()[0])
        return Scope(kind, "" if kind is ScopeKind.ALL else getattr(self, kind.value))


class Acknowledgement(Shape):
    """A subscriber has applied every event up to the cursor."""

    subscriber: Name
    cursor: Annotated[str, Field(min_length=3, max_length=256)]


class SigningRequest(Shape):
    """A PKCS#10 request for a guard's server certificate."""

    csr: str = Field(min_length=1, max_length=16_384, description="DER (RFC 2986) in base64.")


class CredentialRequest(SigningRequest):
    """A PKCS#10 request for a task's credential at one audience."""

    task: Name
    audience: Name


class IntrospectionRequest(Shape):
    """RFC 7662, section 2.1, with the audience that asks. A form is taken as well as JSON."""

    token: str = Field(min_length=1, max_length=65_536)
    audience: Name
    token_type_hint: str | None = None


class TaskDocument(Shape):
    """A task. Its handle is in no answer but the first one to its start, and to a rotation."""

    id: str
    agent: str
    purpose: str
    state: TaskState
    type: str
    params: dict[str, Any]
    on_behalf_of: str
    session: str
    uid: int | None
    created_at: Time
    created_by: str
    deadline: Time
    idle_timeout: float | None
    last_active_at: Time | None
    ended_at: Time | None
    ended_by: str


class GrantDocument(Shape):
    """A grant. ``schemas`` are one per ancestor and its own; ``used`` counts reserved uses too."""

    id: str
    task: str
    server: str
    tools: list[str]
    schemas: list[dict[str, Any]]
    state: GrantState
    created_at: Time
    expires_at: Time
    requested_by: str
    max_uses: int | None
    idle_timeout: float | None
    reason: str
    used: int
    in_flight: int
    remaining: int | None
    last_used_at: Time | None
    ended_at: Time | None
    ended_by: str
    notes: list[str]
    approvers: list[str]
    activated_at: Time | None


class TaskWithGrants(Shape):
    task: TaskDocument
    grants: list[GrantDocument]


class StartedDocument(TaskWithGrants):
    """``handle`` is null when the answer repeats an earlier one for the same Idempotency-Key."""

    handle: str | None


class TaskPage(Shape):
    tasks: list[TaskDocument]
    next: str | None = Field(description="The ``after`` of the next page; null on the last.")


class GrantsDocument(Shape):
    grants: list[GrantDocument]


class GrantPage(GrantsDocument):
    next: str | None = Field(description="The ``after`` of the next page; null on the last.")


class HandleDocument(Shape):
    handle: str


class EndedDocument(Shape):
    """What came of ending something. ``durable_at`` is null when it could not be stored; it is enforced
    anyway."""

    enforced_at: Time
    durable_at: Time | None
    tasks: list[str]
    grants: list[str]
    unacknowledged: list[str] = Field(
        description="Guards that did not answer; by now they refuse by themselves."
    )
    begun: list[str] = Field(description="Calls that a tool had received: their outcome is unknown.")


class GrantUse(Shape):
    """One grant, granted against used."""

    grant: str
    server: str
    tools: list[str]
    state: GrantState
    max_uses: int | None
    used: int
    remaining: int | None
    last_used_at: Time | None


class ReportDocument(Shape):
    """Granted against used. ``unused`` are the grants that no call ever used."""

    task: TaskDocument
    grants: list[GrantUse]
    unused: list[str]
    uses: int


class IssuedDocument(Shape):
    task: str
    audience: str
    certificate: str = Field(description="PEM chain, leaf first, without the root.")
    token: str
    bundle: str = Field(description="PEM trust bundle.")
    serial: str
    jti: str
    grants: list[str]
    not_after: Time


class EnrolledDocument(Shape):
    server: str
    certificate: str = Field(description="PEM chain, leaf first, without the root.")
    bundle: str = Field(description="PEM trust bundle.")
    jwks: dict[str, Any]
    not_after: Time


class Fault(Shape):
    pointer: str = Field(description="RFC 6901, into the request's body.")
    detail: str


class Problem(BaseModel):
    """RFC 9457, with a stable ``code``."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    errors: list[Fault] = Field(default_factory=list)
