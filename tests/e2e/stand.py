"""A sidecar between a client that we hold by its bytes and tool servers that count theirs.

Two servers behind the catalogue, both recorders: ``tools`` speaks MCP (both eras), ``desk`` plain HTTP. Tasks are told
apart by their handles, so that tests share one stand.
"""

import http.client
import json
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from taskgrant.client import SyncTaskgrantClient
from taskgrant.identity.contexts import server_context
from taskgrant.identity.csr import new_key
from taskgrant.identity.spiffe import guard_id
from taskgrant.model.task import Started
from tests.e2e.processes import TRUST_DOMAIN, Installation, Process, wait_for
from tests.e2e.recorder import Recorder

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
VERSION_META = "io.modelcontextprotocol/protocolVersion"
TOOLS = ("note", "limited", "guarded", "scan", "other", "forbidden")
BODY_LIMIT = 1 << 16

#: What a security author wrote: one tool is never to be called, one rule has a builtin that fails on bad input, and one
#: takes its time.
POLICY = """package taskgrant.authz

import rego.v1

deny contains {"code": "denied_by_policy", "reason": "nobody calls this tool"} if input.resource.id == "forbidden"

deny contains {"reason": "that network is closed"} if {
	input.resource.id == "scan"
	net.cidr_contains(input.resource.properties.arguments.network, "10.0.0.1")
}

deny contains {"reason": "that text has factors"} if {
	input.resource.properties.arguments.text == "slow"
	some one in numbers.range(1, 4000)
	some other in numbers.range(1, 4000)
	one * other < 0
}
"""
PROFILES = {"tools/limited": {"max_rate_per_minute": 1}}
#: Whatever the arguments: where it is about what becomes of them.
ANYTHING_AT_ALL = {"properties": {}, "additionalProperties": True}
ANYTHING = {"properties": {"text": {"type": "string"}, "network": {"type": "string"}}}


def grant(tool: str = "note", server: str = "tools", **members: Any) -> dict[str, Any]:
    return {"server": server, "tools": [tool], "arguments": ANYTHING, **members}


def rpc_body(tool: str, arguments: Any, *, rpc_id: Any = 1) -> dict[str, Any]:
    """A ``tools/call`` of 2026-07-28."""
    params = {"name": tool, "arguments": arguments, "_meta": {VERSION_META: MODERN}}
    return {"jsonrpc": "2.0", "id": rpc_id, "method": "tools/call", "params": params}


def rpc_headers(tool: str = "note", handle: str | None = None, **headers: str) -> dict[str, str]:
    found = {
        "content-type": "application/json",
        "mcp-protocol-version": MODERN,
        "mcp-method": "tools/call",
        "mcp-name": tool,
    }
    if handle is not None:
        found["taskgrant-task"] = handle
    return found | {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer to the agent, as its client gets it."""

    status: int
    body: bytes

    @property
    def message(self) -> Any:
        return json.loads(self.body)

    @property
    def granted(self) -> bool:
        return self.status == 200 and self.message.get("result", {}).get("isError") is not True

    @property
    def code(self) -> str:
        """Why it was refused: of a tool's result with ``isError``, a JSON-RPC error, or a problem document."""
        message = self.message
        if "result" in message:
            assert message["result"]["isError"] is True, message
            return str(message["result"]["_meta"]["taskgrant/code"])
        if "error" in message:
            return str(message["error"]["data"]["code"])
        return str(message["code"])

    @property
    def text(self) -> str:
        """What a model reads."""
        message = self.message
        if "result" in message:
            return str(message["result"]["content"][0]["text"])
        return str(message["error"]["message"] if "error" in message else message["detail"])


@dataclass
class Stand:
    place: Installation
    sidecar: Process
    control: SyncTaskgrantClient
    tools: Recorder
    desk: Recorder
    opa: Path  # the program that the sidecar starts; removable
    read_audit: int = 0

    @classmethod
    def start(cls, place: Installation, **sections: Any) -> "Stand":
        tools, desk = Recorder(), Recorder()
        for recorder in (tools, desk):
            place.stack.callback(recorder.close)
        place.servers["tools"] = {
            "protocol": "mcp",
            "upstream": f"https://127.0.0.1:{tools.port}/mcp",
            "versions": [LEGACY, MODERN],
            "hosts": ["tools.internal"],
        }
        place.servers["desk"] = {
            "protocol": "http",
            "upstream": f"https://127.0.0.1:{desk.port}/api",
            "operations": [{"tool": "comment", "method": "POST", "path": "/tickets/{id}/comments"}],
            "hosts": ["desk.internal"],
        }
        free = [tool for tool in TOOLS if tool != "guarded"]
        place.boundary.append({"server": "tools", "tools": free})
        place.boundary.append({"server": "tools", "tools": ["guarded"], "approval": "required"})
        place.boundary.append({"server": "desk", "tools": ["comment"]})
        given = sections.pop("listen", {})
        place.sections = {
            "authority": {"task_binding": "handle"},
            "listen": {"body_limit": BODY_LIMIT, **given},
            "policy": {"deadline_ms": 1000},  # a busy machine is not what is under test
            **sections,
        }
        place.policy.mkdir(exist_ok=True)
        (place.policy / "site.rego").write_text(POLICY)
        (place.policy / "taskgrant").mkdir(exist_ok=True)
        (place.policy / "taskgrant" / "data.json").write_text(json.dumps({"profiles": PROFILES}))
        opa = place.directory / "opa"
        if not opa.exists():
            opa.symlink_to(place.opa)
        place.opa = opa
        sidecar = place.run()
        control = SyncTaskgrantClient(place.control)
        for name, recorder in (("tools", tools), ("desk", desk)):
            key = new_key()
            enrolled = control.enrol(name, key.csr(guard_id(TRUST_DOMAIN, name)))
            recorder.serve(server_context(enrolled.certificate, key, enrolled.bundle))
        return cls(place, sidecar, control, tools, desk, opa)

    # -- the orchestrator --------------------------------------------------------------------------------------

    def task(self, *grants: dict[str, Any], **members: Any) -> Started:
        return self.control.start({"purpose": "end-to-end", "grants": list(grants), **members})

    def handle(self, *grants: dict[str, Any], **members: Any) -> str:
        handle = self.task(*grants, **members).handle
        assert handle is not None
        return handle

    # -- the agent ---------------------------------------------------------------------------------------------

    def address(self, listener: str) -> tuple[str, int]:
        url = urlsplit(self.place.addresses[listener])
        assert url.hostname is not None
        assert url.port is not None
        return url.hostname, url.port

    def send(
        self,
        target: str,
        body: bytes,
        headers: dict[str, str],
        *,
        method: str = "POST",
        listener: str = "gateway",
    ) -> Reply:
        connection = http.client.HTTPConnection(*self.address(listener), timeout=30)
        try:
            connection.request(method, target, body, headers)
            response = connection.getresponse()
            return Reply(response.status, response.read())
        finally:
            connection.close()

    def call(
        self,
        handle: str | None,
        tool: str = "note",
        arguments: Any = None,
        server: str = "tools",
        **headers: str,
    ) -> Reply:
        body = json.dumps(rpc_body(tool, {} if arguments is None else arguments)).encode()
        return self.send(f"/{server}/mcp", body, rpc_headers(tool, handle, **headers))

    # -- what was written down ---------------------------------------------------------------------------------

    def mark(self) -> None:
        """``records`` reads from here on."""
        self.read_audit = (self.place.directory / "audit.jsonl").stat().st_size

    def records(self, event: str = "call.decided") -> list[dict[str, Any]]:
        """The records since ``mark``, whole lines only."""
        with (self.place.directory / "audit.jsonl").open("rb") as file:
            file.seek(self.read_audit)
            lines = file.read().rpartition(b"\n")[0].splitlines()
        return [record for record in map(json.loads, lines) if record["event"] == event]

    def recorded(self, code: str, event: str = "call.decided") -> dict[str, Any]:
        """Waits for the record of a decision with this code since ``mark``."""

        def found() -> dict[str, Any] | None:
            return next((one for one in self.records(event) if one.get("code") == code), None)

        return wait_for(found, f"a record {event} with the code {code}", self.sidecar)

    @property
    def received(self) -> int:
        """Bytes that any tool server has received after the handshake."""
        return self.tools.received + self.desk.received

    # -- the sidecar's own ends --------------------------------------------------------------------------------

    def admin(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(*self.address("admin"), timeout=30)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def ready(self) -> bool:
        return self.admin("/readyz")[0] == 200

    def metric(self, sample: str) -> float:
        """One sample of ``/metrics``, by its name and labels as they are printed; 0 if it is not there."""
        for line in self.admin("/metrics")[1].splitlines():
            name, _, value = line.rpartition(" ")
            if name == sample:
                return float(value)
        return 0.0

    def opa_pid(self) -> int:
        """The OPA that the sidecar runs now; waits while there is none."""
        return int(wait_for(lambda: _child(self.sidecar.pid, "opa"), "OPA runs", self.sidecar))

    def signal_opa(self, number: signal.Signals) -> None:
        os.kill(self.opa_pid(), number)


def _child(parent: int, name: str) -> int | None:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            pid, rest = stat.read_text().split(" (", 1)
            command, fields = rest.rsplit(") ", 1)
            if command == name and int(fields.split()[1]) == parent:
                return int(pid)
    return None
