"""A tool server that speaks MCP on stdio, as the guard sees tool servers: requests in, answers out.

A command is started for the first request of a task, and for each MCP session of a task, since a server on stdio is one
session by nature; tasks never share one. It is not on any port or socket: nothing but this process reaches it.

======================  ==============================================================================================
``initialize``          starts a command, whose answer names the session (revisions with sessions)
a request               of a session: to its command; of 2026-07-28: to the task's command, started where there is none
a notification, answer  to the command; 202
``GET``                 what the command says outside of any request
``DELETE``              ends the command
task or authority ends  ends its commands; so does cutting a request that one is at work on: what is done for a call
                        that was cut can be stopped in no other way
======================  ==============================================================================================
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

from taskgrant.errors import Refused
from taskgrant.guard import flights
from taskgrant.guard.child import Child, Exchange
from taskgrant.guard.config import GuardConfig
from taskgrant.guard.flights import Flight
from taskgrant.guard.upstream import Answer
from taskgrant.model.call import Headers
from taskgrant.model.codes import Code
from taskgrant.model.json import JsonObject
from taskgrant.protocols import lines, sse
from taskgrant.protocols.mcp.headers import SESSION, VERSION
from taskgrant.protocols.mcp.methods import INITIALIZE, is_modern

_JSON, _EVENTS = "application/json", "text/event-stream"
_CLOSE_SECONDS = 10.0
#: What a program commonly needs, and what MCP's own clients hand on.
_USUAL = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER")


def child_environment(own: Mapping[str, str], asked: Sequence[str]) -> dict[str, str]:
    """The variables of commands: the usual ones of ours, and ``NAME=VALUE`` or, of our own, ``NAME``.

    Raises ValueError for a name that we have not.
    """
    found = {name: own[name] for name in _USUAL if name in own}
    for one in asked:
        name, given, value = one.partition("=")
        if not name or (not given and name not in own):
            raise ValueError(f"the variable {name!r} is not set")
        found[name] = value if given else own[name]
    return found


class StdioServer:
    """``upstream.ToolServer`` over child processes. Made inside a running loop."""

    def __init__(self, config: GuardConfig) -> None:
        self._config = config
        self._children: dict[Child, str] = {}  # those that have not ended, and whose they are
        self._leaving: set[Child] = set()  # those that are being ended
        self._sessions: dict[str, Child] = {}
        self._without: dict[str, Child] = {}  # by task, for the revision without sessions

    @asynccontextmanager
    async def send(self, method: str, url: str, headers: Headers, body: bytes) -> AsyncIterator[Answer]:
        flight = flights.current.get()
        given = dict(headers)
        session = given.get(SESSION)
        if session is not None and session not in self._sessions:
            yield _plain(404)
        elif method == "POST":
            async with self._post(flight, json.loads(body), session, given.get(VERSION, "")) as answer:
                yield answer
        elif session is None:
            yield _plain(400)
        elif method == "DELETE":
            self._sessions[session].end("its session was ended")
            yield _plain(204)
        else:
            yield Answer(200, {"content-type": _EVENTS}, None, _listened(self._sessions[session].listen()))

    def end(self, task: str, sessions: tuple[str, ...]) -> None:
        for child in [child for child, owner in self._children.items() if owner == task]:
            child.end("its task has ended")

    def end_all(self) -> None:
        for child in tuple(self._children):
            child.end("the authority was started anew")

    async def close(self) -> None:
        for child in tuple(self._children):
            child.end("the guard ends")
        if self._leaving:
            await asyncio.wait([child.over for child in self._leaving], timeout=_CLOSE_SECONDS)

    @asynccontextmanager
    async def _post(
        self, flight: Flight, message: JsonObject, session: str | None, version: str
    ) -> AsyncIterator[Answer]:
        opens = message.get("method") == INITIALIZE and session is None
        if session is not None:
            child = self._sessions[session]
        elif opens:
            session = secrets.token_urlsafe(24)
            child = self._sessions[session] = self._start(flight, partial(self._sessions.pop, session, None))
        elif is_modern(version):
            child = self._of_task(flight)
        else:
            yield _plain(400)
            return
        if "method" not in message or "id" not in message:
            await child.tell(message)
            yield _plain(202)
            return
        with child.exchange(message) as (exchange, sent):
            flight.works(partial(child.end, "a call that it was at work on was cut"))
            await child.write(sent)
            more = {SESSION: session} if opens and session is not None else {}
            yield await _answer(exchange, more)

    def _of_task(self, flight: Flight) -> Child:
        task = flight.verified.bearer.token.task
        if task not in self._without:
            self._without[task] = self._start(flight, partial(self._without.pop, task, None))
        return self._without[task]

    def _start(self, flight: Flight, forget: Callable[[], object]) -> Child:
        token = flight.verified.bearer.token
        mine = sum(owner == token.task for owner in self._children.values())
        if mine >= self._config.children_per_task:
            raise Refused(
                Code.OVERLOADED,
                f"the task runs {mine} tool servers of this kind already; end a session first",
            )
        if len(self._children) + len(self._leaving) >= self._config.children:
            raise Refused(Code.OVERLOADED, "as many tool servers of this kind run already as may")
        told = {"TASKGRANT_TASK_ID": token.task, "TASKGRANT_AGENT": token.agent}
        if token.on_behalf_of:
            told["TASKGRANT_ON_BEHALF_OF"] = token.on_behalf_of
        child = Child(
            self._config.command,
            self._config.environment | told,
            name={"server": self._config.server, "task": token.task},
            line_limit=self._config.line_limit,
            idle_seconds=self._config.idle_seconds,
            on_end=partial(self._ended, forget),
        )
        self._children[child] = token.task
        return child

    def _ended(self, forget: Callable[[], object], child: Child) -> None:
        forget()
        del self._children[child]
        self._leaving.add(child)
        child.over.add_done_callback(lambda _: self._leaving.discard(child))


async def _answer(exchange: Exchange, headers: Mapping[str, str]) -> Answer:
    """JSON when the answer is all that comes, else a stream of events that ends with it."""
    messages = exchange.messages()
    first, last = await anext(messages)
    if last:
        body = lines.encode(first)
        return Answer(200, {"content-type": _JSON, **headers}, len(body), _one(body))
    return Answer(200, {"content-type": _EVENTS, **headers}, None, _events(first, messages))


async def _events(
    first: JsonObject, messages: AsyncIterator[tuple[JsonObject, bool]]
) -> AsyncIterator[bytes]:
    yield sse.encode(lines.encode(first).rstrip())
    async for message, _ in messages:
        yield sse.encode(lines.encode(message).rstrip())


async def _listened(heard: AsyncIterator[JsonObject]) -> AsyncIterator[bytes]:
    yield sse.comment("listening")
    async for message in heard:
        yield sse.encode(lines.encode(message).rstrip())


async def _one(body: bytes) -> AsyncIterator[bytes]:
    yield body


def _plain(status: int) -> Answer:
    return Answer(status, {}, 0, _one(b""))
