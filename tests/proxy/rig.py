"""The call pipeline on real parts, in one process: authority, ledger, credentials, connections, listener, a TLS server.

Policy is the model's own reading of grants (what OPA is asked too), so that a test can also make it say anything else.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import ClientResponse, ClientSession

from taskgrant.authority.clock import SystemClock
from taskgrant.authority.config import AuthorityConfig, Binding
from taskgrant.authority.embedded import EmbeddedAuthority
from taskgrant.identity.contexts import server_context
from taskgrant.identity.csr import new_key
from taskgrant.identity.signer import LocalSigner
from taskgrant.identity.spiffe import agent_id, guard_id
from taskgrant.model.catalogue import Catalogue, Operation, Server, ServerProtocol
from taskgrant.model.codes import Code
from taskgrant.model.coverage import best_refusal, compare, covers
from taskgrant.model.decision import Admission, Admitted, Ask, Decision, Obligations, Query
from taskgrant.model.egress import EgressAction, EgressDecision, EgressHosts, EgressQuery
from taskgrant.model.grant import Grant, GrantSpec
from taskgrant.model.json import JsonObject
from taskgrant.model.principal import Principal, Role
from taskgrant.model.task import Outcome, Started, Task, TaskSpec
from taskgrant.model.time import Instant
from taskgrant.protocols.http import HttpCodec
from taskgrant.protocols.mcp.codec import McpCodec
from taskgrant.proxy.config import ProxyConfig
from taskgrant.proxy.credentials import Credentials
from taskgrant.proxy.egress import Egress
from taskgrant.proxy.flows import Flow, HttpFlow
from taskgrant.proxy.gate import Gate
from taskgrant.proxy.mcp import McpFlow
from taskgrant.proxy.parts import Parts
from taskgrant.proxy.pipeline import Pipeline
from taskgrant.proxy.rate import RateLimiter
from taskgrant.proxy.rounds import Rounds
from taskgrant.proxy.standing import Standing
from taskgrant.wire.config import ListenConfig
from taskgrant.wire.credentials import Keyring
from taskgrant.wire.legs import Legs
from taskgrant.wire.listener import Listener
from taskgrant.wire.upstream import HttpUpstream
from tests.authority.support import MemoryTrail
from tests.e2e.recorder import Request, answer, whole
from tests.wire.support import Peer, Tool, serving

DOMAIN = "example.org"
AGENT = agent_id(DOMAIN, "researcher")
ANYBODY = Principal("uid:0", frozenset(Role))
LEGACY, MODERN = "2025-11-25", "2026-07-28"
VERSION_META = "io.modelcontextprotocol/protocolVersion"
ANYTHING: JsonObject = {"properties": {}, "additionalProperties": True}

#: What the tool server does with one request; the default answers as any plain server would.
Behaviour = Callable[[Peer, Request], Awaitable[None]]


async def plain(peer: Peer, request: Request) -> None:
    await peer.send(answer(request))


def spec(tool: str = "note", server: str = "tools", **members: Any) -> GrantSpec:
    return GrantSpec(server, (tool,), ANYTHING, **members)


class Reading:
    """Decides as the model reads grants; ``says`` overrides it, ``limit`` is an obligation of every permit."""

    def __init__(self) -> None:
        self.says: Callable[[Query], Decision] | None = None
        self.limit: int | None = None
        self.hidden: frozenset[str] = frozenset()

    async def decide(self, query: Query) -> Decision:
        if self.says is not None:
            return self.says(query)
        compared = compare(query.grants, query.call)
        for grant in query.grants:
            if covers(grant, query.call, query.now, compared) is None:
                return Decision(
                    True, Code.GRANTED, grant_id=grant.id, obligations=Obligations(rate_per_minute=self.limit)
                )
        refusal = best_refusal(query.grants, query.call, query.now)
        return Decision(False, refusal.code, (refusal.reason,), miss={"grant": ("tools",)})

    async def egress(self, query: EgressQuery) -> EgressDecision:
        return EgressDecision(EgressAction.REFUSE, Code.DENIED_BY_POLICY, ("nothing but calls passes",))

    async def visible(
        self, task: Task, grants: Sequence[Grant], server: str, tools: Sequence[str], now: Instant
    ) -> frozenset[str]:
        return frozenset(tools) - self.hidden

    async def admit(self, ask: Ask) -> Admitted:
        return Admitted(Admission.APPROVE, ask.grants)


class Counting:
    """``Telemetry`` that remembers."""

    def __init__(self) -> None:
        self.codes: list[str] = []
        self.stages: list[str] = []

    def decided(self, code: str, server: str) -> None:
        self.codes.append(code)

    def observe(self, stage: str, seconds: float) -> None:
        self.stages.append(stage)


@dataclass
class Rig:
    authority: EmbeddedAuthority
    decider: Reading
    trail: MemoryTrail
    telemetry: Counting
    parts: Parts
    pipeline: Pipeline
    standing: Standing
    gateway: str
    client: ClientSession
    requests: list[Request]
    behaviour: Behaviour = plain
    seen: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self, *grants: GrantSpec, **members: Any) -> Started:
        return await self.authority.start(TaskSpec("a test", grants, **members), ANYBODY, None)

    async def end(self, started: Started) -> None:
        await self.authority.end(started.task.id, Outcome.COMPLETE, ANYBODY)

    async def rpc(
        self,
        started: Started | None,
        method: str,
        params: dict[str, Any] | None = None,
        *,
        rpc_id: Any = 1,
        session: str | None = None,
        **members: Any,
    ) -> "Answer":
        """One message of 2025-11-25; without an id a notification."""
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, **members}
        if params is not None:
            message["params"] = params
        if rpc_id is not None:
            message["id"] = rpc_id
        return await self.post(started, message, session=session)

    async def post(self, started: Started | None, message: Any, session: str | None = None) -> "Answer":
        headers = self.headers(started, session)
        async with self.client.post(f"{self.gateway}/tools/mcp", json=message, headers=headers) as response:
            return await Answer.read(response)

    def headers(self, started: Started | None, session: str | None = None) -> dict[str, str]:
        headers = {"mcp-protocol-version": LEGACY}
        if started is not None and started.handle is not None:
            headers["taskgrant-task"] = started.handle
        if session is not None:
            headers["mcp-session-id"] = session
        return headers

    async def call(
        self, started: Started | None, tool: str = "note", arguments: Any = None, session: str | None = None
    ) -> "Answer":
        params = {"name": tool, "arguments": arguments or {}}
        return await self.rpc(started, "tools/call", params, session=session)

    async def modern(self, started: Started, method: str, params: dict[str, Any], name: str = "") -> "Answer":
        headers = self.headers(started) | {"mcp-protocol-version": MODERN, "mcp-method": method}
        if name:
            headers["mcp-name"] = name
        params = {**params, "_meta": {VERSION_META: MODERN}}
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        async with self.client.post(f"{self.gateway}/tools/mcp", json=message, headers=headers) as response:
            return await Answer.read(response)

    def methods(self) -> list[str]:
        return [request.method or request.line.split(" ")[0] for request in self.requests]

    def codes(self) -> list[Any]:
        """Of all decisions on record."""
        return [fields["code"] for fields in self.trail.fields("call.decided")]

    async def until(self, condition: Callable[[], Any]) -> Any:
        """Waits for what another task of this process is about to do."""
        async with asyncio.timeout(10):
            while not (seen := condition()):  # noqa: ASYNC110 - nothing signals it
                await asyncio.sleep(0.001)
        return seen


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    headers: dict[str, str]

    @classmethod
    async def read(cls, response: ClientResponse) -> "Answer":
        headers = {name.lower(): value for name, value in response.headers.items()}
        return cls(response.status, await response.read(), headers)

    @property
    def message(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        message = self.message
        if "result" in message:
            return str(message["result"].get("_meta", {}).get("taskgrant/code", "granted"))
        return str(message["error"]["data"]["code"] if "error" in message else message["code"])


def event(message: Any) -> bytes:
    return b"data: " + json.dumps(message).encode() + b"\n\n"


STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@asynccontextmanager
async def rigged(directory: Path, config: ProxyConfig | None = None) -> AsyncIterator[Rig]:
    """``config`` with a keep-alive that no test waits for, unless it says so."""
    async with AsyncExitStack() as stack:
        clock, trail, decider, telemetry = SystemClock(), MemoryTrail(), Reading(), Counting()
        signer = LocalSigner.create(DOMAIN, clock)
        authority = await EmbeddedAuthority.open(
            AuthorityConfig(state_dir=directory / "state", task_binding=Binding.HANDLE),
            agent=AGENT, trust_domain=DOMAIN, signer=signer, decider=decider, trail=trail, clock=clock,
        )  # fmt: skip
        stack.push_async_callback(authority.close)
        rigs: list[Rig] = []

        async def script(peer: Peer, tool: Tool) -> None:
            rig = rigs[0]
            while True:
                read = whole(await peer.request())
                assert read is not None
                rig.requests.append(read[0])
                rig.seen.set()
                await rig.behaviour(peer, read[0])

        bases = {}
        for name in ("tools", "desk"):
            key = new_key()
            enrolled = await authority.enrol(name, key.csr(guard_id(DOMAIN, name)), ANYBODY)
            context = server_context(enrolled.certificate, key, enrolled.bundle)
            tool = await stack.enter_async_context(serving(script, context))
            bases[name] = f"https://127.0.0.1:{tool.port}"
        catalogue = Catalogue(
            (
                Server("tools", ServerProtocol.MCP, f"{bases['tools']}/mcp", versions=(LEGACY, MODERN)),
                Server(
                    "desk",
                    ServerProtocol.HTTP,
                    bases["desk"],
                    operations=(
                        Operation("show", "GET", "/tickets/{id}"),
                        Operation("live", "GET", "/rooms/{room}/live", ("since",), websocket=True),
                    ),
                ),
            )
        )
        legs = Legs(clock)
        keyring = Keyring(catalogue, DOMAIN, AGENT)
        upstream = HttpUpstream(legs, keyring.context)
        stack.push_async_callback(upstream.close)
        parts = Parts(
            catalogue=catalogue,
            codecs={ServerProtocol.MCP: McpCodec(), ServerProtocol.HTTP: HttpCodec()},
            view=authority.view,
            decider=decider,
            ledger=authority.ledger,
            recorder=authority.ledger,
            credentials=Credentials(authority, keyring, upstream, clock),
            legs=legs,
            upstream=upstream,
            rates=RateLimiter(),
            rounds=Rounds(),
            clock=clock,
            telemetry=telemetry,
            config=config or ProxyConfig(keepalive_seconds=300),
            body_limit=65536,
        )
        standing = Standing(
            lambda caller, server: authority.view.live_grants(),
            parts.config.max_streams,
            parts.config.keepalive_seconds,
        )
        flows: dict[str, Flow] = {
            ServerProtocol.MCP: McpFlow(parts, standing),
            ServerProtocol.HTTP: HttpFlow(parts),
        }
        gate = Gate(AGENT, authority.view, decider, legs, authority.ledger, clock, telemetry)
        pipeline = Pipeline(parts, flows, Egress(EgressHosts(), gate, upstream, {}, parts.body_limit))
        authority.attach(pipeline)
        listener = Listener(
            "gateway",
            "127.0.0.1:0",
            pipeline.handle,
            ListenConfig(),
            frozenset({os.getuid()}),
            pipeline.turned_away,
        )
        host, port = await listener.start()
        stack.push_async_callback(listener.stop, 5.0)
        client = await stack.enter_async_context(ClientSession())
        rig = Rig(
            authority,
            decider,
            trail,
            telemetry,
            parts,
            pipeline,
            standing,
            f"http://{host}:{port}",
            client,
            [],
        )
        rigs.append(rig)
        yield rig
