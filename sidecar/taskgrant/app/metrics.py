"""The process's metrics, in Prometheus' exposition format: decisions by code, times by stage, what is live now."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

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
        stages = Histogram(
            "taskgrant_stage_seconds",
            "Time that calls spend in each stage of the pipeline.",
            ("stage",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        # Label look-ups are not free; each is done once.
        self._stages = {stage: stages.labels(stage) for stage in _STAGES}
        self._codes: dict[tuple[str, str], Counter] = {}

    def decided(self, code: str, server: str) -> None:
        key = (code, server)
        counter = self._codes.get(key)
        if counter is None:
            counter = self._codes[key] = self._decisions.labels(code, server)
        counter.inc()

    def observe(self, stage: Stage, seconds: float) -> None:
        self._stages[stage].observe(seconds)

    def live(self, name: str, text: str, count: Callable[[], int]) -> None:
        """A gauge that is read when it is asked for."""
        Gauge(f"taskgrant_live_{name}", text, registry=self.registry).set_function(count)

    def exposition(self) -> bytes:
        return generate_latest(self.registry)
