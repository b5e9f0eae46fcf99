"""The results as people read them: tables 100 columns wide, and each target with whether it is met."""

from rich.console import Console
from rich.table import Table

from bench.measuring import Results
from bench.scrape import STAGES
from bench.stack import Cores

WIDTH = 100

#: What the sidecar is to reach.
MOST_OVER_DIRECT_MS = 1.2  # p50, one connection
LEAST_RATE = 1500  # calls a second, 32 connections
MOST_MEMORY_MIB = 90
MOST_START_SECONDS = 2.0


def show(results: Results, cores: Cores, console: Console) -> None:
    console.print()
    console.print(_latencies(results))
    console.print(_ways(results))
    console.print(_shares(results))
    console.print(_targets(results))
    if not cores.apart:
        console.print("One core for everything: sidecar and load took time from each other.")


def _latencies(results: Results) -> Table:
    table = Table(title="direct against through the sidecar (p50 and p99 in ms)", title_justify="left")
    table.add_column("conn.", justify="right")
    for side in ("direct", "sidecar", "ratio"):
        for value in ("p50", "p99", "calls/s"):
            table.add_column(f"{side}\n{value}", justify="right")
    for one in results.compared:
        direct, sidecar = one.direct, one.sidecar
        table.add_row(
            str(one.concurrency),
            *(f"{direct.p50_ms:.2f}", f"{direct.p99_ms:.2f}", f"{direct.rate:,.0f}"),
            *(f"{sidecar.p50_ms:.2f}", f"{sidecar.p99_ms:.2f}", f"{sidecar.rate:,.0f}"),
            *(f"{sidecar.p50_ms / direct.p50_ms:.1f} ×", f"{sidecar.p99_ms / direct.p99_ms:.1f} ×"),
            f"1/{direct.rate / sidecar.rate:.1f}",
        )
    return table


def _ways(results: Results) -> Table:
    table = Table(
        title="intercepted: the server dialled by name, by http and by https that is ended at the sidecar",
        title_justify="left",
    )
    for column in ("way", "conn.", "p50 (ms)", "p99 (ms)", "calls/s", "p50 over direct", "rate"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for one in results.ways:
        table.add_row(
            *(one.name, str(one.concurrency)),
            *(f"{one.sidecar.p50_ms:.2f}", f"{one.sidecar.p99_ms:.2f}", f"{one.sidecar.rate:,.0f}"),
            f"{one.sidecar.p50_ms / one.direct.p50_ms:.1f} ×",
            f"1/{one.direct.rate / one.sidecar.rate:.1f}",
        )
    return table


def _shares(results: Results) -> Table:
    table = Table(
        title="where a call's time goes on average, and the processor time that it takes (ms)",
        title_justify="left",
    )
    table.add_column("conn.", justify="right")
    for stage in STAGES:
        table.add_column(stage, justify="right")
    for column in ("sidecar\nCPU", "OPA\nCPU", "unit of\nwork"):
        table.add_column(column, justify="right")
    for one in results.compared:
        whole = sum(one.stages_ms.values())
        shares = [f"{one.stages_ms[stage]:.2f} {one.stages_ms[stage] / whole:4.0%}" for stage in STAGES]
        cpu = (f"{one.sidecar_cpu_ms:.2f}", f"{one.opa_cpu_ms:.2f}", f"{one.unit_ms:.1f}")
        table.add_row(str(one.concurrency), *shares, *cpu)
    return table


def _targets(results: Results) -> Table:
    first, last = results.compared[0], results.compared[-1]
    start = sorted(results.start_seconds)[len(results.start_seconds) // 2]
    memory = results.sidecar_memory.now
    table = Table(title="targets", title_justify="left")
    for column in ("what", "measured", "target", ""):
        table.add_column(column)
    rows = (
        (
            "p50 over direct, one connection",
            f"{first.over_direct_ms:.2f} ms",
            f"at most {MOST_OVER_DIRECT_MS} ms",
            first.over_direct_ms <= MOST_OVER_DIRECT_MS,
        ),
        (
            "calls/s, 32 connections, one core with OPA",
            f"{last.sidecar.rate:,.0f}",
            f"at least {LEAST_RATE:,}",
            last.sidecar.rate >= LEAST_RATE,
        ),
        (
            f"the sidecar's memory after {results.calls:,} calls",
            f"{memory:.0f} MiB (OPA's: {results.opa_memory.now:.0f} MiB)",
            f"at most {MOST_MEMORY_MIB} MiB",
            memory <= MOST_MEMORY_MIB,
        ),
        (
            f"from start to ready, median of {len(results.start_seconds)}",
            f"{start:.2f} s",
            f"at most {MOST_START_SECONDS:g} s",
            start <= MOST_START_SECONDS,
        ),
    )
    for what, measured, target, met in rows:
        table.add_row(what, measured, target, "met" if met else "missed")
    return table
