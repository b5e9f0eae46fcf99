"""MCP in the pipeline: the client's session is ended here, the server's belongs to the task.

What a call meets, by its kind (design, section 4, "MCP sessions"):

======== ============================================================================================
session  answered here: ``initialize``, ``server/discover``, ``ping``; no server is contacted
stream   held here (``proxy.standing``); the server's own stream is pumped into it (``proxy.pump``)
list     empty without a live grant for the server; else asked of the server, and filtered
notice   taken; goes on to the server if it cancels a call that runs, or ends a session (``DELETE``)
answer   goes on only if the server asked for it in this conversation
tool     goes to the server, in its session
======== ============================================================================================
"""

import secrets
from contextlib import AbstractAsyncContextManager

from taskgrant.errors import Refused
from taskgrant.model.call import Call, Headers, Kind, Outbound, Refusal
from taskgrant.model.catalogue import Server
from taskgrant.model.codes import Code
from taskgrant.model.coverage import covers_server
from taskgrant.model.credential import Issued
from taskgrant.model.ids import TaskId
from taskgrant.model.json import JsonObject
from taskgrant.model.ports import Exchange, Reply
from taskgrant.model.record import Record
from taskgrant.model.task import Task
from taskgrant.protocols.mcp import answers, handshake, lists
from taskgrant.protocols.mcp.codec import McpCodec
from taskgrant.protocols.mcp.headers import SESSION, VERSION
from taskgrant.protocols.mcp.methods import DELETE, DISCOVER, INITIALIZE, LISTEN, is_modern
from taskgrant.proxy.conversations import Conversation, Conversations
from taskgrant.proxy.forward import credential, send
from taskgrant.proxy.parts import Parts, Permitted
from taskgrant.proxy.pump import Pumps
from taskgrant.proxy.relay import (
    check_kind,
    check_status,
    events,
    media_type,
    read_message,
    relay,
    relay_events,
    relay_message,
    whole,
)
from taskgrant.proxy.standing import Standing

_HANDSHAKE_LIMIT = 1 << 20
#: What clients are told of a server that has not spoken yet. Some clients ask for nothing that was not announced when
#: they connected, and a later task may grant it; until then these lists are answered here, and are empty.
_UNKNOWN = handshake.Handshake("", {"resources": {}, "prompts": {}}, {})

#: What a task must be able to use of a server for these lists to be asked for. ``tools/list`` is filtered instead.
_USE_OF_LIST = {
    "resources/list": "mcp:resources/read",
    "resources/templates/list": "mcp:resources/read",
    "prompts/list": "mcp:prompts/get",
}
_TOOLS_LIST = "tools/list"


class McpFlow:
    def __init__(self, parts: Parts, standing: Standing) -> None:
        self._parts = parts
        self._standing = standing
        self._codec = McpCodec()
        self._conversations = Conversations()
        self._pumps = Pumps(parts, standing)
        self._said: dict[str, handshake.Handshake] = {}  # what each server last said of itself

    # -- what is answered here ---------------------------------------------------------------------------------

    async def answer(self, exchange: Exchange, server: Server, call: Call, task: Task | None) -> bool:
        match call.kind:
            case Kind.SESSION:
                await self._session(exchange, server, call)
            case Kind.STREAM:
                await self._stream(exchange, call)
            case Kind.NOTICE if call.action == DELETE and (task is None or not self._in_session(call, task)):
                await exchange.answer(answers.session_ended())
            case Kind.NOTICE if call.action != DELETE and (task is None or not self._cancels(call, task)):
                await exchange.answer(answers.accepted())
            case Kind.LIST if task is None or not self._may_list(task, call):
                await exchange.answer(answers.empty_list(call))
            case Kind.ANSWER:
                self._check_asked(call, task)
                return False
            case _:
                return False
        return True

    async def _session(self, exchange: Exchange, server: Server, call: Call) -> None:
        said = self._said.get(server.name, _UNKNOWN)
        if call.action == INITIALIZE:
            opened = secrets.token_urlsafe(24)
            self._conversations.introduce(
                opened, handshake.client_capabilities(call.params.get("capabilities"))
            )
            await exchange.answer(
                answers.initialize(call, server, said.capabilities, opened, said.server_info)
            )
        elif call.action == DISCOVER:
            await exchange.answer(answers.discover(call, server, said.capabilities, said.server_info))
        else:
            await exchange.answer(answers.pong(call))

    def _cancels(self, call: Call, task: Task) -> bool:
        """True for the cancellation of a request that is on its way in the same conversation of the same task."""
        conversation = self._conversations.find(task.id, call.server, call.session)
        if conversation is None or call.action != "notifications/cancelled":
            return False
        return call.params.get("requestId") in conversation.in_flight

    def _in_session(self, call: Call, task: Task) -> bool:
        """True while the server holds a session for this conversation, under a grant that still reaches it."""
        conversation = self._conversations.find(task.id, call.server, call.session)
        return conversation is not None and conversation.session is not None and self._may_list(task, call)

    def _check_asked(self, call: Call, task: Task | None) -> None:
        conversation = (
            self._conversations.find(task.id, call.server, call.session) if task is not None else None
        )
        if conversation is None or call.rpc_id is None or call.rpc_id not in conversation.asked:
            raise Refused(Code.NO_GRANT, "no tool server of the current task has asked for this answer")

    def _may_list(self, task: Task, call: Call) -> bool:
        """Tools are listed under any grant for the server and filtered; others only under one that lets it be used."""
        now = self._parts.clock.now()
        grants = [
            grant
            for grant in self._parts.view.live(task.id, now)
            if not covers_server(grant, call.server, now)
        ]
        use = _USE_OF_LIST.get(call.action)
        return any(use is None or use in grant.tools for grant in grants)

    async def _stream(self, exchange: Exchange, call: Call) -> None:
        first = answers.listen_acknowledged_event(call) if call.action == LISTEN else b""
        changed = (
            answers.list_changed_event(call.version, call.rpc_id) if answers.wants_tool_changes(call) else b""
        )
        await self._standing.serve(exchange, call, first, changed)

    # -- what goes to the server -------------------------------------------------------------------------------

    async def forward(self, permitted: Permitted) -> None:
        call = permitted.call
        if call.action == DELETE:
            await self._end_session(permitted)
            return
        conversation = self._conversations.open(permitted.task.id, call.server, call.session)
        issued = await credential(self._parts, permitted)
        if not is_modern(call.version):
            await self._open_session(permitted, conversation, issued)
            self._pumps.ensure(permitted, conversation)
        out = _in_session(self._codec.encode(permitted.server, call), conversation)
        if call.kind is Kind.ANSWER and call.rpc_id is not None:
            conversation.asked.pop(call.rpc_id, None)
        elif call.rpc_id is not None:
            # In a session an id names one request; a server that is given two may answer one of them only.
            if conversation.session is not None and call.rpc_id in conversation.in_flight:
                raise Refused(Code.CONFLICT, "a request with this id is on its way in this session already")
            conversation.in_flight.add(call.rpc_id)
        try:
            async with send(self._parts, permitted, out, issued) as reply:
                await self._relay(permitted, conversation, reply)
        finally:
            if call.rpc_id is not None:
                conversation.in_flight.discard(call.rpc_id)

    async def _end_session(self, permitted: Permitted) -> None:
        call = permitted.call
        conversation = self._conversations.end(permitted.task.id, call.server, call.session)
        if conversation is not None and conversation.session is not None:
            issued = await credential(self._parts, permitted)
            out = handshake.end_session(permitted.server, conversation.version, conversation.session)
            # Whatever the server says to it (it may not let clients end sessions): here it is over.
            async with send(self._parts, permitted, out, issued):
                pass
        await permitted.exchange.answer(answers.session_ended())

    async def _relay(self, permitted: Permitted, conversation: Conversation, reply: Reply) -> None:
        exchange, call = permitted.exchange, permitted.call
        check_status(reply, call.server)
        if reply.status == 404 and conversation.session is not None:
            conversation.lost()
            raise Refused(Code.UPSTREAM_UNREACHABLE, f"{call.server} had ended its session; try again")
        await check_kind(reply, call.server)

        async def filtered(message: JsonObject) -> JsonObject:
            return await self._filtered(permitted, message)

        def heard(data: bytes | str) -> None:
            self._parts.rounds.heard(call, data)

        transform = filtered if call.action == _TOOLS_LIST else None
        match media_type(reply):
            case "text/event-stream":
                await relay_events(reply, exchange, conversation.ask, transform, heard)
            case "application/json" if transform is not None:
                await relay_message(reply, exchange, transform)
            case _ if call.kind in (Kind.NOTICE, Kind.ANSWER):
                await exchange.answer(answers.accepted())
            case _:
                await relay(reply, exchange, heard)

    async def _filtered(self, permitted: Permitted, message: JsonObject) -> JsonObject:
        """A list as the task may see it, fit to be cached by this client alone and not past the task's next change."""
        call, task = permitted.call, permitted.task
        now = self._parts.clock.now()
        grants = self._parts.view.live(task.id, now)
        names = lists.tool_names(message)
        visible = await self._parts.decider.visible(task, grants, call.server, names, now)
        ending = min((grant.expires_at for grant in grants if grant.state.live), default=now)
        ttl_ms = min(self._parts.config.list_ttl_ms, max(0, int((ending - now) * 1000)))
        return lists.filter_list(message, visible, ttl_ms, modern=is_modern(call.version))

    async def _open_session(self, permitted: Permitted, conversation: Conversation, issued: Issued) -> None:
        """The handshake with the server, once a conversation: under the task's credential and within the call's leg."""
        async with conversation.opening:
            if conversation.ready:
                return
            try:
                await self._shake_hands(permitted, conversation, issued)
            except Refused as fault:
                if fault.code != Code.OUTCOME_UNKNOWN:
                    raise
                reason = f"{permitted.server.name} opened no session: {fault.reason}; nothing was sent"
                raise Refused(Code.UPSTREAM_UNREACHABLE, reason) from fault
            finally:
                permitted.leg.begun = False  # of the call itself, not a byte has been sent

    async def _shake_hands(self, permitted: Permitted, conversation: Conversation, issued: Issued) -> None:
        server = permitted.server
        can = self._conversations.capabilities(permitted.call.session)
        async with self._contact(
            permitted, handshake.initialize_request(server, permitted.call.version, can), issued
        ) as reply:
            check_status(reply, server.name)
            await check_kind(reply, server.name)
            try:
                hello = handshake.read_initialize(await _message(reply))
            except handshake.HandshakeFault as fault:
                raise Refused(
                    Code.UPSTREAM_UNREACHABLE, f"{server.name} opened no session: {fault}"
                ) from fault
            session = next((value for name, value in reply.headers if name == SESSION), None)
        notice = handshake.initialized_notification(server, hello.version, session)
        async with self._contact(permitted, notice, issued) as reply:
            check_status(reply, server.name)
        self._said[server.name] = hello
        conversation.session, conversation.version, conversation.ready = session, hello.version, True

    def _contact(
        self, permitted: Permitted, out: Outbound, issued: Issued
    ) -> AbstractAsyncContextManager[Reply]:
        """A request of the sidecar's own: on record before it is sent, and no use of any grant."""

        async def admit() -> None:
            fields = {
                "call": permitted.call.id,
                "task": permitted.task.id,
                "server": permitted.server.name,
                "grant": permitted.grant.id,
                "serial": issued.serial,
            }
            await self._parts.recorder.write(Record("session.contacted", self._parts.clock.now(), fields))

        return self._parts.upstream.send(out, issued, permitted.leg, admit)

    def refuse_event(self, call: Call, refusal: Refusal) -> bytes | None:
        return self._codec.refuse_event(call, refusal) if call.kind is not Kind.STREAM else None

    def refuse_trailers(self, call: Call, refusal: Refusal) -> Headers:
        return ()

    def forget(self, task: TaskId) -> None:
        self._conversations.forget(task)


def _in_session(out: Outbound, conversation: Conversation) -> Outbound:
    """The request in the server's session, speaking the revision that was agreed there."""
    if not conversation.version:
        return out
    replaced = {VERSION: conversation.version}
    if conversation.session is not None:
        replaced[SESSION] = conversation.session
    kept = tuple(pair for pair in out.headers if pair[0] not in replaced)
    return Outbound(out.method, out.url, kept + tuple(replaced.items()), out.body)


async def _message(reply: Reply) -> JsonObject:
    """The one message of a reply, whether it came as JSON or as the first event of a stream."""
    if media_type(reply) != "text/event-stream":
        return read_message(await whole(reply, _HANDSHAKE_LIMIT))
    async for event, _ in events(reply, lambda _: None):
        if event.data:
            return read_message(event.data)
    raise Refused(Code.UPSTREAM_UNREACHABLE, "the tool server ended the handshake without an answer")
