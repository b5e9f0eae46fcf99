"""The ports: what the parts of taskgrant ask of each other. Everything that does I/O stands behind one of these."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from taskgrant.model.call import Answer, Call, Caller, Head, Headers, Malformed, Outbound, Refusal
from taskgrant.model.catalogue import Server
from taskgrant.model.credential import Enrolled, Issued
from taskgrant.model.decision import Admitted, Ask, Decision, Query
from taskgrant.model.egress import EgressDecision, EgressQuery
from taskgrant.model.event import Cursor, Ended, Event, Revocation, Scope, Verdict
from taskgrant.model.grant import Grant, GrantSpec
from taskgrant.model.ids import CallId, GrantId, TaskId
from taskgrant.model.json import JsonObject
from taskgrant.model.principal import Principal
from taskgrant.model.record import Record
from taskgrant.model.task import Outcome, Started, Task, TaskSpec
from taskgrant.model.time import Instant


class Authority(Protocol):
    """Holds tasks and grants, signs, revokes, tells everyone. Every method may raise ``errors.Refused``."""

    async def start(self, spec: TaskSpec, by: Principal, key: str | None) -> Started: ...
    async def end(self, task: TaskId, how: Outcome, by: Principal) -> Ended:
        """Returns when everything covered is severed and each guard has acknowledged or is past its staleness bound."""
        ...

    async def request(
        self, task: TaskId, grants: Sequence[GrantSpec], by: Principal, key: str | None
    ) -> tuple[Grant, ...]:
        """Adds grants to a running task; they may be pending."""
        ...

    async def judge(self, what: Scope, verdict: Verdict, by: Principal, reason: str = "") -> Ended: ...
    async def rotate(self, task: TaskId, by: Principal) -> str:
        """A new handle for the task; the old one is dead when this returns."""
        ...

    async def issue(self, task: TaskId, audience: str, csr: bytes) -> Issued: ...
    async def enrol(self, server: str, csr: bytes, by: Principal) -> Enrolled:
        """A server certificate for the guard in front of ``server``."""
        ...

    def events(self, after: Cursor | None, subscriber: str | None = None) -> AsyncIterator[Event]:
        """A snapshot (unless ``after`` can be resumed), changes, heartbeats. A named subscriber acknowledges."""
        ...

    async def acknowledge(self, subscriber: str, cursor: Cursor) -> None: ...
    async def task(self, task: TaskId) -> tuple[Task, tuple[Grant, ...]]: ...
    async def tasks(self, after: TaskId | None, limit: int) -> tuple[Task, ...]: ...
    async def grant(self, grant: GrantId) -> Grant: ...
    async def grants(self, after: GrantId | None, limit: int) -> tuple[Grant, ...]: ...
    async def bundle(self) -> bytes:
        """The trust bundle, PEM."""
        ...

    async def jwks(self) -> JsonObject: ...
    async def crl(self) -> bytes:
        """A CRL (RFC 5280, section 5), PEM."""
        ...

    async def introspect(self, token: str, audience: str) -> JsonObject:
        """RFC 7662, section 2.2: ``{"active": false}`` for anything that is not live or not for this audience."""
        ...


class View(Protocol):
    """What is true now, in memory: synchronous, never a remote call per tool call."""

    def bind(self, caller: Caller) -> Task | Refusal: ...
    def live(self, task: TaskId, now: Instant) -> tuple[Grant, ...]:
        """The task's grants, those that are over included (their state says so), so that a denial can say why."""
        ...

    def frozen(self, task: Task | None, server: str, tool: str | None) -> bool:
        """``task`` of None asks for what belongs to none."""
        ...


@dataclass(frozen=True, slots=True)
class Reservation:
    """A use that is taken: written, with its record, before the first byte goes upstream."""

    grant: GrantId
    call: CallId
    counted: bool = True  # False for a retry that repeats a use under the same identity


class Ledger(Protocol):
    """Uses and audit records in one transaction, on one writer thread."""

    async def reserve(
        self, grant: GrantId, call: CallId, dedupe: str | None, record: Record
    ) -> Reservation | Refusal: ...
    async def settle(self, reservation: Reservation, sent: bool, record: Record) -> None:
        """``sent=False`` gives the use back. Never raises for a use whose grant has ended meanwhile."""
        ...


class Recorder(Protocol):
    async def write(self, record: Record) -> None:
        """Returns when the record is with the kernel. Raises ``errors.Refused`` (audit_unavailable) when it is not."""
        ...

    def post(self, record: Record) -> None:
        """For restrictive effects: never waits, never raises."""
        ...


class Decider(Protocol):
    """OPA. Never raises: what cannot be decided is a denial with its code."""

    async def decide(self, query: Query) -> Decision: ...
    async def visible(
        self, task: Task, grants: Sequence[Grant], server: str, tools: Sequence[str], now: Instant
    ) -> frozenset[str]:
        """Which of these tools the task may see. Raises ``errors.Refused`` when OPA cannot say."""
        ...

    async def admit(self, ask: Ask) -> Admitted: ...


class EgressDecider(Protocol):
    """The same OPA, for traffic that is no tool call. Never raises."""

    async def egress(self, query: EgressQuery) -> EgressDecision: ...


class Codec(Protocol):
    """Sans-I/O: bytes to a call and back; assumes no HTTP connection."""

    def parse(self, server: Server, head: Head, body: bytes) -> Call | Malformed: ...
    def encode(self, server: Server, call: Call) -> Outbound: ...
    def refuse(self, call: Call | Malformed, refusal: Refusal) -> Answer: ...


@dataclass(frozen=True, slots=True)
class Destination:
    """What the client dialled: ``gateway`` (the first path segment names the server), ``absolute`` (the target does),
    ``transparent`` (Host does, on a redirected connection) or ``connect`` (CONNECT does, and so does Host)."""

    way: Literal["gateway", "absolute", "transparent", "connect"]
    name: str  # the server's name, or host[:port] in lower case, without the scheme's own port
    scheme: Literal["http", "https"] = "http"


class Duplex(Protocol):
    """A connection that has changed its protocol (RFC 9110, section 7.8): bytes both ways."""

    async def read(self) -> bytes:
        """What has come, at most a buffer of it; nothing once the other side is gone."""
        ...

    async def write(self, data: bytes) -> None:
        """Returns when there is room again. Raises ConnectionError when the other side is gone."""
        ...


class Exchange(Protocol):
    """One request of the agent and the answer to it, whatever way it came in.

    ``begin``/``write``/``end`` raise ConnectionError when the client is gone. ``end("abort")`` never waits.
    """

    caller: Caller
    destination: Destination
    head: Head

    def serves(self, task: TaskId) -> None:
        """What the request came by is this task's from now on, and ends with it."""
        ...

    @property
    def begun(self) -> bool: ...
    @property
    def ended(self) -> bool: ...
    @property
    def streaming(self) -> bool:
        """A stream of events has begun and not ended: one more event can be written."""
        ...

    async def body(self, limit: int) -> bytes:
        """The whole body. Raises ``errors.Refused`` with too_large or malformed."""
        ...

    async def begin(self, status: int, headers: Headers) -> None: ...
    async def write(self, data: bytes) -> None: ...
    async def end(self, how: Literal["clean", "abort"]) -> None: ...
    async def upgrade(self, headers: Headers) -> Duplex:
        """Changes the protocol (101): what is written and read from now on is not HTTP any more.

        Raises ``errors.Refused`` (unsupported) where that cannot be done.
        """
        ...

    @property
    def trailers(self) -> bool:
        """Whether an answer can end with fields (``finish``): gRPC needs that."""
        ...

    async def finish(self, trailers: Headers) -> None:
        """A clean end with these fields."""
        ...

    async def finish_within(self, data: bytes, seconds: float, trailers: Headers = ()) -> None:
        """The last bytes and a clean end, if the client takes them in time; else an abort. Never raises for it."""
        ...

    async def answer(self, answer: Answer, *, close: bool = False) -> None:
        """A whole answer, and the last of its connection if ``close`` and the protocol needs that."""
        ...


class Leg(Protocol):
    """The upstream side of one registered call; over, whatever it was doing, at ``until`` or when it is severed."""

    call: CallId
    task: TaskId
    grant: GrantId | None
    begun: bool  # a byte may have been written upstream

    def narrow(self, grant: GrantId, until: Instant) -> None:
        """From now on the leg belongs to this grant too, and ends with it."""
        ...


class Reply(Protocol):
    """A tool server's answer, its body as it comes."""

    status: int
    headers: Headers
    serial: str  # of the certificate that was shown to the server
    duplex: Duplex | None  # behind a 101 to what opens a WebSocket, and only then
    subprotocol: str | None  # that the server chose with it
    trailers: Headers  # when ``chunks`` has ended

    def chunks(self) -> AsyncIterator[bytes]: ...


class Upstream(Protocol):
    """Connections to tool servers, one pool per credential, that can be severed."""

    def send(
        self, out: Outbound, issued: Issued, leg: Leg, admit: Callable[[], Awaitable[None]]
    ) -> AbstractAsyncContextManager[Reply]:
        """``admit`` is awaited once the connection stands, before the first byte; if it raises, none is written."""
        ...

    async def apply(self, revocation: Revocation) -> tuple[CallId, ...]:
        """Returning means severed. Answers the calls that had begun."""
        ...


class Signer(Protocol):
    """Signs for the trust domain: bytes in and out, never a key object, so that a KMS fits behind it."""

    def certificate(self, profile: "LeafProfile", public_key: bytes) -> bytes:
        """DER public key (SubjectPublicKeyInfo) to PEM chain, leaf first, without the root."""
        ...

    def token(self, claims: JsonObject) -> str:
        """A JWS in compact form, ``typ: at+jwt``, whose key is in ``jwks()``."""
        ...

    def bundle(self) -> bytes: ...
    def jwks(self) -> JsonObject: ...
    def crl(self, serials: Sequence[tuple[str, Instant]], now: Instant) -> bytes: ...


@dataclass(frozen=True, slots=True)
class LeafProfile:
    """An X.509-SVID to be: exactly one URI SAN, and DNS names only for a guard's server certificate."""

    uri: str
    not_before: Instant
    not_after: Instant
    serial: int
    dns: tuple[str, ...] = ()
