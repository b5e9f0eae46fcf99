"""The process's metrics, in Prometheus' exposition format: decisions by code, times by stage, what is live now."""

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from taskgrant.proxy.telemetry import Stage

_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_STAGES: tuple[Stage, ...] = ("parse", "decide", "credential", "record", "upstream")


class Metrics:
    """``proxy.telemetry.Telemetry`` over prometheus_client, with a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._decisions = Counter(
            "taskgrant_decisions",
            "Decisions on calls, by code and server.",
            ("code", "server"),
            registry=self.registry,
        )
        self._lookups = Counter(
            "taskgrant_lookups",
            "Name look-ups of the agent, by outcome.",
            ("outcome",),
            registry=self.registry,
        )
        self._stages = _Stages()
        self.registry.register(self._stages)
        # Label look-ups are not free; each is done once.
        self._codes: dict[tuple[str, str], Counter] = {}
        self.live("asyncio_tasks", "Tasks of the event loop that is asked.", _asyncio_tasks)

    def decided(self, code: str, server: str) -> None:
        key = (code, server)
        counter = self._codes.get(key)
        if counter is None:
            counter = self._codes[key] = self._decisions.labels(code, server)
        counter.inc()

    def looked_up(self, outcome: str) -> None:
        self._lookups.labels(outcome).inc()

    def observe(self, stage: Stage, seconds: float) -> None:
        self._stages.observe(stage, seconds)

    def live(self, name: str, text: str, count: Callable[[], int]) -> None:
        """A gauge that is read when it is asked for."""
        Gauge(f"taskgrant_live_{name}", text, registry=self.registry).set_function(count)

    def exposition(self) -> bytes:
        return generate_latest(self.registry)


def _asyncio_tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:  # asked outside of a loop
        return 0


class _Stages(Collector):
    """A histogram by stage, counted in plain lists: five are counted a call, all in one thread, and the library's own
    takes a lock for each number.
    """

    def __init__(self) -> None:
        self._counts = {stage: [0] * (len(_BUCKETS) + 1) for stage in _STAGES}
        self._sums = dict.fromkeys(_STAGES, 0.0)

    def observe(self, stage: Stage, seconds: float) -> None:
        self._counts[stage][bisect_left(_BUCKETS, seconds)] += 1
        self._sums[stage] += seconds

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(
            "taskgrant_stage_seconds",
            "Time that calls spend in each stage of the pipeline.",
            labels=("stage",),
        )
        bounds = [*map(str, _BUCKETS), "+Inf"]
        for stage, counts in self._counts.items():
            buckets = list(zip(bounds, accumulate(counts), strict=True))
            family.add_metric((stage,), buckets, self._sums[stage])
        yield family
