"""What Prometheus reads is what was told: counts by code and server, times by stage, and what is live then."""

from prometheus_client.parser import text_string_to_metric_families

from taskgrant.app.metrics import Metrics


def _samples(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {
        (one.name, tuple(value for _, value in sorted(one.labels.items()))): one.value
        for family in families
        for one in family.samples
    }


def test_times_by_stage() -> None:
    metrics = Metrics()
    for seconds in (0.00005, 0.0001, 0.003, 60.0):
        metrics.observe("decide", seconds)
    seen = _samples(metrics)
    assert seen["taskgrant_stage_seconds_count", ("decide",)] == 4
    assert abs(seen["taskgrant_stage_seconds_sum", ("decide",)] - 60.00315) < 1e-9
    # Buckets are cumulative, and a bound belongs to its own bucket.
    for bound, count in (("0.0001", 2), ("0.0025", 2), ("0.005", 3), ("5.0", 3), ("+Inf", 4)):
        assert seen["taskgrant_stage_seconds_bucket", (bound, "decide")] == count
    assert seen["taskgrant_stage_seconds_count", ("upstream",)] == 0


def test_decisions_and_what_is_live() -> None:
    metrics = Metrics()
    live = [1, 2]
    metrics.live("tasks", "Tasks.", lambda: len(live))
    for _ in range(3):
        metrics.decided("granted", "mail")
    metrics.decided("no_grant", "")
    seen = _samples(metrics)
    assert seen["taskgrant_decisions_total", ("granted", "mail")] == 3
    assert seen["taskgrant_decisions_total", ("no_grant", "")] == 1
    assert seen["taskgrant_live_tasks", ()] == 2
    live.pop()
    assert _samples(metrics)["taskgrant_live_tasks", ()] == 1


def test_look_ups_by_outcome() -> None:
    metrics = Metrics()
    for outcome in ("address", "unknown", "unknown"):
        metrics.looked_up(outcome)
    seen = _samples(metrics)
    assert seen["taskgrant_lookups_total", ("address",)] == 1
    assert seen["taskgrant_lookups_total", ("unknown",)] == 2
