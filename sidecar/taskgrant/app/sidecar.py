"""``taskgrant run``: the sidecar with its authority and its OPA, started in order, ready together, stopped in reverse.

Nothing is bound before the configuration holds; the control API is up before the agent's listeners; the agent's
listeners are up only when policy answers. When any part ends for good, all end, and the agent is left with no way out.
"""

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import ssl
import sys
from collections.abc import Hashable
from pathlib import Path

from taskgrant import version
from taskgrant.api.server import ControlServer
from taskgrant.app.admin import Admin
from taskgrant.app.config import Config, check_own_uid
from taskgrant.app.hardening import harden
from taskgrant.app.interception import Interception, intercepting
from taskgrant.app.metrics import Metrics
from taskgrant.app.starting import asked_by
from taskgrant.audit.logs import setup_logging
from taskgrant.audit.trail import Trail
from taskgrant.authority.clock import SystemClock
from taskgrant.authority.embedded import EmbeddedAuthority
from taskgrant.identity.contexts import anonymous_context
from taskgrant.identity.signer import LocalSigner
from taskgrant.identity.spiffe import agent_id
from taskgrant.model.call import Caller, Refusal
from taskgrant.model.catalogue import ServerProtocol
from taskgrant.model.egress import EgressHosts
from taskgrant.model.event import EventKind
from taskgrant.policy.process import PolicyEngine, policy_engine
from taskgrant.protocols.dns import Names
from taskgrant.protocols.grpc.codec import GrpcCodec
from taskgrant.protocols.http import HttpCodec
from taskgrant.protocols.mcp.codec import McpCodec
from taskgrant.proxy.credentials import Credentials
from taskgrant.proxy.egress import Egress
from taskgrant.proxy.flows import HttpFlow
from taskgrant.proxy.gate import Gate
from taskgrant.proxy.grpc import GrpcFlow
from taskgrant.proxy.mcp import McpFlow
from taskgrant.proxy.parts import Parts
from taskgrant.proxy.pipeline import Pipeline
from taskgrant.proxy.rate import RateLimiter
from taskgrant.proxy.rounds import Rounds
from taskgrant.proxy.splicing import Splicer
from taskgrant.proxy.standing import Fingerprint, Standing
from taskgrant.wire.credentials import Keyring
from taskgrant.wire.dispatching import DispatchingListener
from taskgrant.wire.http2.upstream import GrpcUpstream
from taskgrant.wire.legs import Legs
from taskgrant.wire.listener import Listener
from taskgrant.wire.resolver import Resolver
from taskgrant.wire.transparent import TransparentListener
from taskgrant.wire.upstream import HttpUpstream

_log = logging.getLogger("taskgrant")

#: How long calls in flight may take to end when the process is asked to stop.
_GRACE_SECONDS = 5.0


def run(config: Config) -> int:
    """Runs until SIGTERM or SIGINT (exit code 0), or until a part fails for good (1)."""
    import uvloop

    setup_logging(sys.stderr)
    harden()
    return uvloop.run(_main(config))


def _spare_collector() -> None:
    """What is there once we are up stays: the garbage collector need not look at it again. What calls leave behind is
    mostly freed at once, and cycles among it are few: they are looked for less often.
    """
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


async def _main(config: Config) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Sidecar(config) as sidecar:
        _spare_collector()
        failed = asyncio.ensure_future(sidecar.failed.wait())
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait((failed, stopped), return_when=asyncio.FIRST_COMPLETED)
        for waiting in (failed, stopped):
            waiting.cancel()
        return 1 if sidecar.failed.is_set() else 0


class Sidecar:
    """All parts of one process. ``async with`` starts and stops them; ``failed`` is set when it cannot go on."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.failed = asyncio.Event()
        self.metrics = Metrics()
        self.addresses: dict[str, str] = {}
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> "Sidecar":
        async with contextlib.AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        _log.info("stopped")

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        config = self._config
        check_own_uid(config)
        runtime = config.runtime_dir
        with asked_by("runtime_dir", runtime):
            runtime.mkdir(parents=True, exist_ok=True, mode=0o700)

        clock = SystemClock()
        catalogue = config.catalogue()
        opa = await stack.enter_async_context(policy_engine(config.policy, runtime))
        with asked_by("audit.file", config.audit.file):
            trail = stack.enter_context(contextlib.closing(Trail(config.audit.file, config.audit.fsync)))
        signer = LocalSigner.create(config.trust_domain, clock)
        agent = agent_id(config.trust_domain, config.agent.name)
        authority = await EmbeddedAuthority.open(
            config.authority,
            agent=agent,
            trust_domain=config.trust_domain,
            signer=signer,
            decider=opa.decider,
            trail=trail,
            clock=clock,
            uids=config.agent_uids,
            on_fenced=self.failed.set,
        )
        stack.push_async_callback(authority.close)
        # Only now is it sure that no other instance is at work here, whose file this would be.
        addresses = runtime / "addresses.json"
        addresses.unlink(missing_ok=True)

        legs = Legs(clock)
        keyring = Keyring(catalogue, config.trust_domain, agent)
        upstream = HttpUpstream(legs, keyring.context)
        stack.push_async_callback(upstream.close)
        grpc_codec, grpc_upstream = GrpcCodec(config.methods()), GrpcUpstream(keyring.context)
        credentials = Credentials(authority, keyring, upstream, clock)
        parts = Parts(
            catalogue=catalogue,
            codecs={
                ServerProtocol.MCP: McpCodec(),
                ServerProtocol.HTTP: HttpCodec(),
                ServerProtocol.GRPC: grpc_codec,
            },
            view=authority.view,
            decider=opa.decider,
            ledger=authority.ledger,
            recorder=authority.ledger,
            credentials=credentials,
            legs=legs,
            upstream=upstream,
            rates=RateLimiter(),
            rounds=Rounds(),
            clock=clock,
            telemetry=self.metrics,
            config=config.proxy,
            body_limit=config.listen.body_limit,
        )
        standing = Standing(_fingerprint(parts), config.proxy.max_streams, config.proxy.keepalive_seconds)
        hosts = config.egress_hosts()
        gate = Gate(agent, parts.view, opa.decider, legs, authority.ledger, clock, self.metrics)
        egress = Egress(hosts, gate, upstream, _egress_contexts(hosts), config.listen.body_limit)
        pipeline = Pipeline(
            parts,
            {
                ServerProtocol.MCP: McpFlow(parts, standing),
                ServerProtocol.HTTP: HttpFlow(parts),
                ServerProtocol.GRPC: GrpcFlow(parts, grpc_codec, grpc_upstream),
            },
            egress,
        )
        authority.attach(pipeline)
        notifier = asyncio.create_task(_notify(authority, standing), name="list_changed")
        stack.push_async_callback(_cancel, notifier)

        self._gauges(authority, credentials, legs, standing, upstream)
        control = ControlServer(
            authority, config.control, agent_uids=config.agent_uids, own_orchestrator=config.agent.own_orchestrator,
            version=version(),
        )  # fmt: skip
        await control.start()
        stack.push_async_callback(control.stop)

        bound = {"control": str(config.control.socket)}
        splicer = Splicer(gate, config.listen.head_timeout)
        interception = intercepting(config.listen, catalogue, hosts, splicer, clock)
        for listener in _listeners(config, pipeline, interception):
            with asked_by(f"listen.{listener.name}", getattr(config.listen, listener.name)):
                bound[listener.name] = _url(*await listener.start())
            pipeline.on_ended(listener.end_of)
            stack.push_async_callback(listener.stop, _GRACE_SECONDS)
        bound.setdefault("proxy", bound.get("transparent", ""))
        if config.listen.transparent is not None:
            resolver = _resolver(config, pipeline, self.metrics)
            with asked_by("redirect.dns_port", str(config.redirect.dns_port)):
                await resolver.start()
            stack.push_async_callback(resolver.stop)

        admin = Admin(config.listen.admin, self.metrics, lambda: _waiting(opa, authority))
        with asked_by("listen.admin", config.listen.admin):
            bound["admin"] = _url(*await admin.start())
        stack.push_async_callback(admin.stop)
        self.addresses = bound
        _announce(addresses, bound)

    def _gauges(
        self,
        authority: EmbeddedAuthority,
        credentials: Credentials,
        legs: Legs,
        standing: Standing,
        upstream: HttpUpstream,
    ) -> None:
        self.metrics.live("tasks", "Tasks that are running.", authority.view.live_tasks)
        self.metrics.live("grants", "Grants of running tasks that are live.", authority.view.live_grants)
        self.metrics.live("credentials", "Credentials held.", lambda: len(credentials))
        self.metrics.live("calls", "Calls on their way to a tool server.", lambda: len(legs))
        self.metrics.live("streams", "Standing streams of clients.", lambda: len(standing))
        self.metrics.live("pools", "Connection pools to tool servers.", lambda: len(upstream))


def _listeners(config: Config, pipeline: Pipeline, interception: Interception) -> list[Listener]:
    """The agent's. A transparent listener at the proxy's address is both."""
    listen, uids = config.listen, config.agent_uids
    common = (pipeline.handle, listen, uids, pipeline.turned_away)
    dispatched = (*common, interception.speakers, interception.admit, interception.unread)
    shared = listen.transparent == listen.proxy
    listeners = [Listener("gateway", listen.gateway, *common)]
    if not shared:
        listeners.append(DispatchingListener("proxy", listen.proxy, *dispatched))
    if listen.transparent is not None:
        listeners.append(TransparentListener(listen.transparent, *dispatched, direct=shared))
    return listeners


def _resolver(config: Config, pipeline: Pipeline, metrics: Metrics) -> Resolver:
    """Knows the names that the agent may dial: those of the catalogue and of egress."""
    redirect = config.redirect
    hosts = [host for server in config.servers.values() for host in server.hosts]
    names = Names.of(
        [*hosts, *config.egress],
        redirect.answer,
        redirect.answer6,
        {name: host.addresses for name, host in config.egress.items() if host.addresses},
    )
    return Resolver(
        redirect.dns_port,
        names,
        config.agent_uids,
        pipeline.turned_away,
        metrics.looked_up,
        config.listen.head_timeout,
    )


def _egress_contexts(hosts: EgressHosts) -> dict[str, ssl.SSLContext]:
    """By who vouches for a host. Raises OSError or ssl.SSLError for a file of roots that cannot be used."""
    return {
        trust: anonymous_context(None if trust == "system" else Path(trust).read_bytes())
        for trust in {host.trust for host in hosts.hosts}
    }


def _fingerprint(parts: Parts) -> Fingerprint:
    """What a client may see of a server: the task that it is bound to, and that task's active grants for the server."""

    def of(caller: Caller, server: str) -> Hashable:
        bound = parts.view.bind(caller)
        if isinstance(bound, Refusal):
            return None
        grants = parts.view.live(bound.id, parts.clock.now())
        return frozenset(grant.id for grant in grants if grant.server == server and grant.state == "active")

    return of


def _waiting(opa: PolicyEngine, authority: EmbeddedAuthority) -> list[str]:
    """Why calls cannot be decided now."""
    fenced = ["authority: another instance has taken over"] if authority.view.fenced else []
    return opa.waiting() + fenced


async def _notify(authority: EmbeddedAuthority, standing: Standing) -> None:
    """Tells clients that listen of every change of what they may see."""
    while True:
        # A stream that ends was too slow: what it missed is made up for by comparing anew.
        async for event in authority.events(None):
            if event.kind in (EventKind.SNAPSHOT, EventKind.TASK, EventKind.GRANT, EventKind.REVOCATION):
                standing.notify()
        await asyncio.sleep(0)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _announce(path: Path, bound: dict[str, str]) -> None:
    """Ready: says so, and leaves the addresses where scripts find them (written whole, then named)."""
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(bound) + "\n")
    os.replace(draft, path)
    _log.info("ready", extra=bound)
