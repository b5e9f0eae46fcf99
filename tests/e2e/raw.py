"""Requests by their bytes: one that passes, to be spoilt in one place, and what must come of it then."""

import json
import socket

from tests.e2e.processes import wait_for
from tests.e2e.stand import MODERN, Stand, rpc_body

GOOD = json.dumps(rpc_body("note", {"text": "a"})).encode()
SOON = 30.0
#: For a listener that waits for nobody.
IMPATIENT = {"head_timeout": 0.5, "body_timeout": 0.5, "keepalive_timeout": 0.5}


def exchange(stand: Stand, data: bytes, listener: str = "gateway") -> bytes:
    """Sends the bytes; everything that comes back until the sidecar closes the connection."""
    with socket.create_connection(stand.address(listener), SOON) as connection:
        received = b""
        try:
            connection.sendall(data)
            while more := connection.recv(65536):
                received += more
        except ConnectionError:
            pass  # it was done with us before we were
        return received


class Bytes:
    """A request that passes, to be spoilt in one place."""

    def __init__(self, stand: Stand, handle: str, listener: str = "gateway") -> None:
        self.stand = stand
        self.listener = listener
        host, port = stand.address(listener)
        self.host = f"{host}:{port}" if listener == "gateway" else "tools.internal"
        self.target = "/tools/mcp" if listener == "gateway" else "http://tools.internal/mcp"
        self.version = "HTTP/1.1"
        self.method = "POST"
        self.lines = [
            "content-type: application/json",
            f"mcp-protocol-version: {MODERN}",
            "mcp-method: tools/call",
            "mcp-name: note",
            f"taskgrant-task: {handle}",
        ]
        self.body = GOOD
        self.framing: list[str] | None = None
        self.closing = True

    def without(self, name: str) -> "Bytes":
        self.lines = [line for line in self.lines if not line.startswith(name + ":")]
        return self

    def having(self, *lines: str) -> "Bytes":
        self.lines += lines
        return self

    def data(self) -> bytes:
        framing = [f"content-length: {len(self.body)}"] if self.framing is None else self.framing
        host = [f"host: {self.host}"] if self.host else []
        lines = [f"{self.method} {self.target} {self.version}", *host, *self.lines, *framing]
        if self.closing:
            lines.append("connection: close")
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + self.body

    def sent(self) -> bytes:
        return exchange(self.stand, self.data(), self.listener)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def passes(request: Bytes) -> None:
    before = len(request.stand.tools.calls)
    assert status(answer := request.sent()) == 200, answer
    assert b'"isError":true' not in answer
    assert len(request.stand.tools.calls) == before + 1


def refused(request: Bytes, code: str | None = None) -> bytes:
    """No tool sees a byte, and the refusal is on record. ``code`` where it is the same whoever finds the fault."""
    stand = request.stand
    before = stand.received
    stand.mark()
    answer = request.sent()
    assert stand.received == before, "a tool server was reached"
    assert status(answer) != 200 or b'"isError":true' in answer or b'"error"' in answer, answer
    records = wait_for(stand.records, "the refusal is on record", stand.sidecar)
    assert "granted" not in {one["code"] for one in records}
    assert all(one["reason"] for one in records)
    if code is not None:
        assert code.encode() in answer, answer
        assert {one["code"] for one in records} == {code}
    return answer
