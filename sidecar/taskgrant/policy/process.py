"""Policy as one thing to start and stop: the snapshot, the check of it, OPA, the client, the decider."""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from taskgrant.errors import ConfigurationError
from taskgrant.policy import opa
from taskgrant.policy.client import OpaClient, OpaFault, OpaUnavailable
from taskgrant.policy.config import PolicyConfig
from taskgrant.policy.decider import OpaDecider
from taskgrant.policy.library import library
from taskgrant.policy.snapshot import Snapshot, take
from taskgrant.policy.supervisor import OpaProcess, State

_PROBE_DEADLINE = 1.0
_PROBE_EVERY = 1.0
_LONGEST_SOCKET = 100  # bytes; the kernel takes 107

#: Questions that every version of our policies answers, whatever it is given.
_PROBES = (
    ("taskgrant/authz", "decision"),
    ("taskgrant/visible", "tools"),
    ("taskgrant/grants", "decision"),
    ("taskgrant/egress", "decision"),
)
_NOBODY = {
    "version": 1,
    "subject": {"type": "agent", "id": "spiffe://taskgrant.invalid/probe", "properties": {}},
    "action": {"name": "probe", "properties": {"protocol": "", "version": ""}},
    "resource": {
        "type": "tool",
        "id": "probe",
        "properties": {
            "server": "probe",
            "arguments": {},
            "meta": {},
            "params": {},
            "headers": {},
            "tools": [],
        },
    },
    "context": {
        "time": "2000-01-01T00:00:00Z",
        "task": {"id": "probe", "type": "", "purpose": "", "deadline": "2000-01-01T00:00:00Z", "params": {}},
        "requested_by": "probe",
        "grants": [],
        "calls": 0,
        "request": {},
    },
}


class PolicyEngine:
    """What the rest of the sidecar sees of policy. ``process`` is None when OPA runs elsewhere."""

    def __init__(self, decider: OpaDecider, process: OpaProcess | None) -> None:
        self.decider = decider
        self.process = process
        self.answers = True  # as far as is known

    @property
    def revision(self) -> str:
        return self.decider.revision

    @property
    def alive(self) -> bool:
        return self.answers if self.process is None else self.process.alive

    def waiting(self) -> list[str]:
        """Why policy cannot be asked at the moment; empty when it can."""
        return [] if self.alive else ["policy: OPA does not answer"]


@contextlib.asynccontextmanager
async def policy_engine(
    config: PolicyConfig, runtime: Path | None = None, on_state: Callable[[State], None] = lambda _: None
) -> AsyncIterator[PolicyEngine]:
    """Policy, ready. ``runtime`` is where a private folder may be made. ``on_state`` is told when OPA comes and goes.

    Raises ``ConfigurationError`` with every fault that OPA finds in the policies, as ``file:line: message``.
    """
    if config.opa.socket is not None:
        async with _elsewhere(config.opa.socket, config, on_state) as engine:
            yield engine
        return
    program = opa.find_opa(config.opa.binary)
    with _private_folder(runtime) as folder:
        snapshot = take(library(), config.directories, folder / "policy")
        # Our own process is not to wait for OPA's compiler: other things start meanwhile.
        faults = await asyncio.to_thread(check_snapshot, program, snapshot, folder)
        if faults:
            raise ConfigurationError(faults)
        socket = folder / "opa.sock"
        async with (
            OpaClient(socket, _PROBE_DEADLINE) as prober,
            OpaProcess(
                program, folder, tuple(f"policy/{copy.name}" for copy in snapshot.directories),
                config.memory_mib, lambda: probe(prober), on_state,
            ) as process,
            OpaClient(socket, config.deadline_ms / 1000) as client,
        ):  # fmt: skip
            yield PolicyEngine(OpaDecider(client, snapshot.revision), process)


async def probe(client: OpaClient) -> None:
    """Asks each question once. Raises ``OpaUnavailable``, or ``OpaFault`` when one has no defined answer."""
    for package, rule in _PROBES:
        await client.ask(package, rule, _NOBODY)


def check_snapshot(program: str, snapshot: Snapshot, folder: Path) -> list[str]:
    """What OPA finds wrong: syntax, names, builtins that no policy gets, and data or rules that say a thing twice."""
    allowed = folder / "capabilities.json"
    allowed.write_text(opa.capabilities(program))
    names = [copy.name for copy in snapshot.directories]
    data = [argument for name in names for argument in ("--data", name)]
    for command in (
        ["check", "--strict", "--format", "json", "--capabilities", str(allowed), *names],
        ["eval", "--format", "json", *data, "true"],
    ):
        answer = opa.run(program, command, folder=snapshot.directories[0].parent)
        faults = opa.faults(answer, snapshot.original)
        if faults:
            return faults
    return []


@contextlib.asynccontextmanager
async def _elsewhere(
    socket: Path, config: PolicyConfig, on_state: Callable[[State], None]
) -> AsyncIterator[PolicyEngine]:
    """An OPA that runs already: asked now and then whether it still answers."""
    async with (
        OpaClient(socket, _PROBE_DEADLINE) as prober,
        OpaClient(socket, config.deadline_ms / 1000) as client,
    ):
        try:
            await probe(prober)
        except (OpaUnavailable, OpaFault) as error:
            raise ConfigurationError(
                [f"the OPA at {socket} does not answer our questions: {error}"]
            ) from error
        engine = PolicyEngine(OpaDecider(client, "external"), None)
        on_state(State.READY)

        async def look() -> None:
            while True:
                await asyncio.sleep(_PROBE_EVERY)
                try:
                    await probe(prober)
                    answers = True
                except (OpaUnavailable, OpaFault):
                    answers = False
                if answers is not engine.answers:
                    engine.answers = answers
                    on_state(State.READY if answers else State.DOWN)

        looking = asyncio.create_task(look(), name="opa.look")
        try:
            yield engine
        finally:
            looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await looking
            on_state(State.STOPPED)


@contextlib.contextmanager
def _private_folder(runtime: Path | None) -> Iterator[Path]:
    """A new folder, 0700, removed afterwards: below ``runtime`` unless a socket in it would have too long a name."""
    if runtime is not None and len(os.fsencode(runtime)) > _LONGEST_SOCKET - 40:
        runtime = None
    folder = Path(tempfile.mkdtemp(prefix="opa-", dir=runtime)).resolve()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
