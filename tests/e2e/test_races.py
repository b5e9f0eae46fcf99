"""What ends while a call is being decided does not count any more when the decision comes."""

import json
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.processes import wait_for
from tests.e2e.stand import MODERN, VERSION_META, Stand, grant, rpc_headers


@pytest.fixture
def stand(place) -> Stand:
    return Stand.start(place, policy={"deadline_ms": 10_000})


def listing(stand: Stand, handle: str):
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": {VERSION_META: MODERN}}}
    headers = {**rpc_headers(handle=handle), "mcp-method": "tools/list"}
    del headers["mcp-name"]
    return stand.send("/tools/mcp", json.dumps(message).encode(), headers)


@pytest.mark.parametrize("call", [listing, Stand.call])
def test_a_grant_that_is_revoked_while_policy_is_asked(stand: Stand, call) -> None:
    started = stand.task(grant(), {"server": "desk", "tools": ["comment"]})
    stand.signal_opa(signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        try:
            asked = pool.submit(call, stand, started.handle)
            wait_for(lambda: stand.metric("taskgrant_live_calls") == 1, "the call waits for policy")
            stand.control.revoke(started.grants[0].id)
        finally:
            stand.signal_opa(signal.SIGCONT)
        assert asked.result(30).code == "revoked"
    assert stand.received == 0
