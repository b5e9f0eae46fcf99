"""Calls: what a codec understood of one intercepted request, and what it makes of it for the other side.

A call is decided on, and only what is in it is sent on: the outbound request is encoded anew from these members.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from taskgrant.model.codes import Code
from taskgrant.model.ids import CallId
from taskgrant.model.json import JsonObject

Headers = tuple[tuple[str, str], ...]  # names in lower case, in the order received


@dataclass(frozen=True, slots=True)
class Caller:
    """Where a request came from. ``uid`` owns the client's socket; None when the kernel could not say."""

    uid: int | None
    listener: str  # "gateway", "proxy", "transparent", …
    handle: str | None = None  # what was presented in Taskgrant-Task or proxy credentials
    peer: str = ""
    dialled: str = ""  # where a redirected connection was for: address and port


@dataclass(frozen=True, slots=True)
class Head:
    """A request's head, framing already checked. ``path`` is as it was sent, without the query."""

    method: str
    path: str
    query: str = ""
    headers: Headers = ()

    def get(self, name: str) -> str | None:
        """The first value of a header, by its lower-case name."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def count(self, name: str) -> int:
        return sum(1 for key, _ in self.headers if key == name)


class Kind(StrEnum):
    """What sort of thing a call is, for the pipeline: what a grant has to say about it."""

    TOOL = "tool"  # consumes a use: tools/call, resources/read, prompts/get, HTTP operations, …
    LIST = "list"  # lists what exists: filtered, consumes nothing, needs some live grant for the server
    SESSION = "session"  # handshake, ping, discovery: the sidecar answers itself, no tool is contacted
    STREAM = "stream"  # the client's standing stream for messages from the server
    NOTICE = "notice"  # a notification from the client
    ANSWER = "answer"  # the client's answer to a request of the server (sampling, elicitation)


@dataclass(frozen=True, slots=True)
class Call:
    """One request, parsed.

    ``action`` is the protocol's own name (``tools/call``, ``http/request``). ``tool`` is what a grant names: the MCP
    tool, the catalogue's operation, or ``mcp:<method>`` for MCP methods beside ``tools/call`` that consume a use.
    ``params`` holds every other member that reaches the tool, so that policy sees it.
    """

    id: CallId
    protocol: str
    server: str
    action: str
    kind: Kind
    tool: str | None = None
    arguments: JsonObject = field(default_factory=dict)
    meta: JsonObject = field(default_factory=dict)
    params: JsonObject = field(default_factory=dict)
    rpc_id: str | int | None = None
    version: str = ""  # the protocol revision that the request speaks
    session: str | None = None  # the client's own session, never an identity
    headers: Headers = ()  # headers that reach the tool because the protocol says so


@dataclass(frozen=True, slots=True)
class Malformed:
    """A request that is no call. ``detail`` names the fault and where, never more than the client sent."""

    code: Code
    detail: str
    rpc_id: str | int | None = None
    rpc_error: int | None = None  # the JSON-RPC error that the protocol asks for, where it asks for one
    rpc_data: JsonObject | None = None  # the data of that error, where the protocol asks for some
    status: int | None = None  # the HTTP status that the protocol asks for, where it asks for one


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why something was not done, in a form that a model can read. Never the values that would have been allowed."""

    code: Code
    reason: str
    can_ask: bool = False  # policy says that this may be asked for
    begun: bool = False  # bytes had reached the tool: what happened there is unknown


@dataclass(frozen=True, slots=True)
class Outbound:
    """A request to a tool server, encoded anew: absolute URL, method, headers of the protocol, body."""

    method: str
    url: str
    headers: Headers
    body: bytes
    websocket: tuple[str, ...] | None = None  # the subprotocols that are offered, when it opens a WebSocket


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer to the client."""

    status: int
    content_type: str
    body: bytes
    headers: Headers = ()
