"""Metrics and health: decisions by code, the time of each stage, what is live, and whether calls can be decided."""

import http.client
from collections.abc import Iterator

import pytest

from tests.e2e.processes import installation, wait_for
from tests.e2e.stand import LEGACY, Stand, grant, rpc_headers


@pytest.fixture(scope="module")
def stand(tmp_path_factory, opa_binary) -> Iterator[Stand]:
    with installation(tmp_path_factory.mktemp("stand"), opa_binary) as place:
        yield Stand.start(place)


def test_decisions_and_stages_are_measured(stand):
    handle = stand.handle(grant())
    counted = stand.metric('taskgrant_decisions_total{code="granted",server="tools"}')
    stages = ("parse", "decide", "credential", "record", "upstream")
    before = {stage: stand.metric(f'taskgrant_stage_seconds_count{{stage="{stage}"}}') for stage in stages}
    assert stand.call(handle).granted
    assert stand.call(handle, "other").code == "no_grant"
    assert stand.metric('taskgrant_decisions_total{code="granted",server="tools"}') == counted + 1
    assert stand.metric('taskgrant_decisions_total{code="no_grant",server="tools"}') >= 1
    after = {stage: stand.metric(f'taskgrant_stage_seconds_count{{stage="{stage}"}}') for stage in stages}
    assert {stage: after[stage] - before[stage] for stage in stages} == {
        "parse": 2, "decide": 2, "credential": 1, "record": 1, "upstream": 1,
    }  # fmt: skip


def test_what_is_live_is_shown(stand):
    def live() -> dict[str, float]:
        names = ("tasks", "grants", "credentials", "calls", "streams")
        return {name: stand.metric(f"taskgrant_live_{name}") for name in names}

    before = live()
    started = stand.task(grant(), grant("scan"))
    assert stand.call(started.handle).granted
    headers = rpc_headers(handle=started.handle) | {
        "accept": "text/event-stream",
        "mcp-protocol-version": LEGACY,
    }
    del headers["mcp-method"], headers["mcp-name"], headers["content-type"]
    host, port = stand.address("gateway")
    stream = http.client.HTTPConnection(host, port, timeout=30)
    stream.request("GET", "/tools/mcp", headers=headers)
    assert stream.getresponse().status == 200
    assert {name: count - before[name] for name, count in live().items()} == {
        "tasks": 1, "grants": 2, "credentials": 1, "calls": 0, "streams": 1,
    }  # fmt: skip
    stand.mark()
    stream.close()
    opened = wait_for(stand.records, "a stream that was left is on record")
    assert [(one["action"], one["code"], one["task"]) for one in opened] == [
        ("GET", "granted", started.task.id)
    ]
    stand.control.complete(started.task.id)
    wait_for(lambda: live() == before, "all of it is gone")


def test_health(stand):
    assert stand.admin("/healthz") == (200, "ok\n")
    assert stand.admin("/readyz") == (200, "ready\n")
    assert stand.admin("/v1/tasks")[0] == 404
