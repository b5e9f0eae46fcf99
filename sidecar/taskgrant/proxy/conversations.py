"""What the sidecar keeps of MCP conversations: one per task, server and session of the client.

The client's session is the client's and means nothing to a tool server. The server's session belongs to the task: it
is opened under the task's credential by the first call that needs it, and is forgotten when the task ends.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

from taskgrant.errors import Refused
from taskgrant.model.codes import Code
from taskgrant.model.ids import TaskId
from taskgrant.model.json import JsonObject

#: An agent that makes up session names must not grow our memory.
_PER_TASK = 64
_ASKED = 64
_SESSIONS = 4096

RpcId = str | int


@dataclass(eq=False, slots=True)
class Conversation:
    """``session`` and ``version`` are the server's; ``ready`` once its handshake is through."""

    ready: bool = False
    session: str | None = None
    version: str = ""
    deaf: bool = False  # the server has no stream of its own
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    in_flight: set[RpcId] = field(default_factory=set)
    asked: dict[RpcId, None] = field(
        default_factory=dict
    )  # requests of the server that the client has yet to answer

    def ask(self, request: RpcId) -> None:
        self.asked[request] = None
        if len(self.asked) > _ASKED:
            del self.asked[next(iter(self.asked))]

    def lost(self) -> None:
        """The server no longer knows the session: the next call opens another."""
        self.ready, self.session = False, None


class Conversations:
    """``introduce`` keeps what a client said of itself when it opened its session, for the servers that come later."""

    def __init__(self) -> None:
        self._of_task: dict[TaskId, dict[tuple[str, str], Conversation]] = {}
        self._capabilities: OrderedDict[str, JsonObject] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(of_task) for of_task in self._of_task.values())

    def open(self, task: TaskId, server: str, session: str | None) -> Conversation:
        """Raises ``errors.Refused`` (overloaded) when the task has too many already."""
        of_task = self._of_task.setdefault(task, {})
        key = (server, session or "")
        if key not in of_task:
            if len(of_task) >= _PER_TASK:
                raise Refused(Code.OVERLOADED, f"the task has {_PER_TASK} sessions already; end one first")
            of_task[key] = Conversation()
        return of_task[key]

    def find(self, task: TaskId, server: str, session: str | None) -> Conversation | None:
        return self._of_task.get(task, {}).get((server, session or ""))

    def end(self, task: TaskId, server: str, session: str | None) -> Conversation | None:
        """Forgets the conversation, and answers it if there was one."""
        return self._of_task.get(task, {}).pop((server, session or ""), None)

    def introduce(self, session: str, capabilities: JsonObject) -> None:
        self._capabilities[session] = capabilities
        if len(self._capabilities) > _SESSIONS:
            self._capabilities.popitem(last=False)

    def capabilities(self, session: str | None) -> JsonObject:
        """What the client of a session can be asked for; nothing for a session that is not known."""
        if session is None or session not in self._capabilities:
            return {}
        self._capabilities.move_to_end(session)
        return self._capabilities[session]

    def forget(self, task: TaskId) -> None:
        self._of_task.pop(task, None)
