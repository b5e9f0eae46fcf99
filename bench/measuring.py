"""The measurement: direct and through the sidecar in turn, at each concurrency, several times; then the medians.

In turn, because the machine may be busy with other things: what disturbs one side then disturbs the other too.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from bench import calibration, procfs, scrape
from bench.load import Load, Measured, Target
from bench.stack import Cores, Stack

CONCURRENCIES = (1, 8, 32)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. ``calls`` of one load at c=1; more connections get more, up to three times as many."""

    rounds: int
    calls: int
    seconds: float  # of one load, at most
    calls_before_memory: int = 10_000

    def calls_at(self, concurrency: int) -> int:
        return self.calls * {1: 1, 8: 2}.get(concurrency, 3)


@dataclass(frozen=True, slots=True)
class Point:
    """One side at one concurrency: medians over the rounds. Milliseconds, calls a second."""

    p50_ms: float
    p99_ms: float
    rate: float

    @classmethod
    def of(cls, rounds: list[Measured]) -> "Point":
        return cls(
            median(one.percentile(0.50) for one in rounds) * 1000,
            median(one.percentile(0.99) for one in rounds) * 1000,
            median(one.rate for one in rounds),
        )


@dataclass(frozen=True, slots=True)
class Compared:
    """Both sides at one concurrency, and what a call costs the sidecar's core: processor time, and time by stage."""

    concurrency: int
    direct: Point
    sidecar: Point
    sidecar_cpu_ms: float
    opa_cpu_ms: float
    unit_ms: float  # what a fixed piece of work took on that core meanwhile, see ``calibration``
    stages_ms: dict[str, float]

    @property
    def over_direct_ms(self) -> float:
        return self.sidecar.p50_ms - self.direct.p50_ms


@dataclass(frozen=True, slots=True)
class Way:
    """A way in other than the gateway, at one concurrency; direct calls took turns with it."""

    name: str
    concurrency: int
    direct: Point
    sidecar: Point


@dataclass(frozen=True, slots=True)
class Results:
    compared: list[Compared]
    ways: list[Way]
    start_seconds: list[float]
    calls: int
    sidecar_memory: procfs.Memory
    opa_memory: procfs.Memory

    def document(self) -> dict[str, Any]:
        return asdict(self)


async def measure(
    stack: Stack, cores: Cores, plan: Plan, starts: list[float], tell: Callable[[str], None]
) -> Results:
    """Raises ``LoadFault`` when a call does not get its answer."""
    task = await stack.task()
    through = stack.through()
    tell("warming up")
    calls = (await _load(through, 8, plan, 1000)).calls
    await _load(await stack.direct(task), 8, plan, 1000)
    compared: list[Compared] = []
    for concurrency in CONCURRENCIES:
        tell(f"{concurrency} connection{'s' if concurrency > 1 else ''}")
        one, made = await _compare(stack, cores, task, concurrency, plan)
        compared.append(one)
        calls += made
    tell("the rest of the calls that memory is read after")
    while (left := plan.calls_before_memory - calls) > 0:
        calls += (await _load(through, 32, plan, left)).calls
    memory = procfs.memory(stack.sidecar), procfs.memory(stack.opa)
    ways: list[Way] = []
    for concurrency in (CONCURRENCIES[0], CONCURRENCIES[-1]):
        tell(f"intercepted, {concurrency} connection{'s' if concurrency > 1 else ''}")
        ways += await _intercepted(stack, task, concurrency, plan)
    return Results(compared, ways, starts, calls, *memory)


async def _compare(
    stack: Stack, cores: Cores, task: str, concurrency: int, plan: Plan
) -> tuple[Compared, int]:
    direct: list[Measured] = []
    sidecar: list[Measured] = []
    cpu = {stack.sidecar: 0.0, stack.opa: 0.0}
    stages: list[scrape.Stages] = []
    units: list[float] = []
    calls = plan.calls_at(concurrency)
    for _ in range(plan.rounds):
        # A credential lives two minutes: a new one for each round.
        direct.append(await _load(await stack.direct(task), concurrency, plan, calls))
        before = scrape.stages(stack.admin)
        spent = {pid: procfs.cpu_seconds(pid) for pid in cpu}
        sidecar.append(await _load(stack.through(), concurrency, plan, calls))
        for pid in cpu:
            cpu[pid] += procfs.cpu_seconds(pid) - spent[pid]
        stages.append(scrape.stages(stack.admin).since(before))
        units.append(calibration.unit_ms(cores.sidecar))
    made = sum(one.calls for one in sidecar)
    means = [one.per_call() for one in stages]
    result = Compared(
        concurrency,
        Point.of(direct),
        Point.of(sidecar),
        cpu[stack.sidecar] / made * 1000,
        cpu[stack.opa] / made * 1000,
        median(units),
        {stage: median(mean[stage] for mean in means) * 1000 for stage in scrape.STAGES},
    )
    return result, made


async def _intercepted(stack: Stack, task: str, concurrency: int, plan: Plan) -> list[Way]:
    direct: list[Measured] = []
    through: dict[str, list[Measured]] = {}
    calls = plan.calls_at(concurrency)
    for _ in range(plan.rounds):
        direct.append(await _load(await stack.direct(task), concurrency, plan, calls))
        for target in stack.intercepted():
            measured = await _load(target, concurrency, plan, calls)
            through.setdefault(target.name, []).append(measured)
    return [Way(name, concurrency, Point.of(direct), Point.of(rounds)) for name, rounds in through.items()]


async def _load(target: Target, connections: int, plan: Plan, calls: int) -> Measured:
    return await Load(target, connections, calls, plan.seconds).run()
