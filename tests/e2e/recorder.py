"""A tool server that counts every byte: real TLS, the client's certificate demanded, each request kept as it came."""

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: What the sidecar sends on its own account, to open a session with a server of old.
HANDSHAKE = ("initialize", "notifications/initialized")


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it reached the server."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def message(self) -> dict[str, Any]:
        return json.loads(self.body) if self.body else {}

    @property
    def method(self) -> str:
        """The JSON-RPC method, "" for what is no message."""
        return str(self.message.get("method", ""))

    @property
    def arguments(self) -> Any:
        return self.message["params"]["arguments"]

    @property
    def tool(self) -> Any:
        return self.message["params"]["name"]


def answer(request: Request) -> bytes:
    """What a plain MCP server, in either era, or any HTTP server would say."""
    if request.headers.get("accept") == "text/event-stream":
        return b"HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n"
    if request.method.startswith("notifications/"):
        return b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"
    result: dict[str, Any] = {"content": [{"type": "text", "text": "done"}], "resultType": "complete"}
    session = b""
    if request.method == "initialize":
        result = {
            "protocolVersion": request.message["params"]["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "recorder", "version": "1"},
        }
        session = b"mcp-session-id: recorded\r\n"
    elif request.method == "tools/list":
        result = {"tools": [], "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
    body = json.dumps({"jsonrpc": "2.0", "id": request.message.get("id"), "result": result}).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n" + session
    return head + b"content-length: %d\r\n\r\n" % len(body) + body


class Recorder:
    """Listens at once; handshakes are answered from ``serve`` on. ``received`` counts bytes after the handshake."""

    def __init__(self, listener: socket.socket | None = None) -> None:
        self.requests: list[Request] = []
        self.received = 0
        self.connections = 0
        self.answer: Callable[[Request], bytes | None] = answer
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._context: ssl.SSLContext | None = None

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def calls(self) -> list[Request]:
        """The requests without the sidecar's own."""
        return [request for request in self.requests if request.method not in HANDSHAKE]

    def serve(self, context: ssl.SSLContext) -> None:
        self._context = context
        threading.Thread(target=self._accept, name="recorder", daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # closed before
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        for connection in tuple(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        assert self._context is not None
        self.connections += 1
        self._open.add(connection)
        # A client that leaves in the middle is no matter of the server's.
        wrap = self._context.wrap_socket
        with contextlib.suppress(OSError), connection, wrap(connection, server_side=True) as secure:
            self._open.add(secure)
            self._talk(secure)
            self._open.discard(secure)
        self._open.discard(connection)

    def _talk(self, secure: ssl.SSLSocket) -> None:
        pending = b""
        while data := secure.recv(65536):
            self.received += len(data)
            pending += data
            while (taken := whole(pending)) is not None:
                request, pending = taken
                self.requests.append(request)
                if (reply := self.answer(request)) is None:
                    return
                secure.sendall(reply)


def whole(data: bytes) -> tuple[Request, bytes] | None:
    """The first request in the data, and the rest. The sidecar frames by Content-Length, or sends no body."""
    head, separator, rest = data.partition(b"\r\n\r\n")
    if not separator:
        return None
    line, *fields = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    assert "transfer-encoding" not in headers
    length = int(headers.get("content-length", "0"))
    if len(rest) < length:
        return None
    return Request(line, headers, rest[:length]), rest[length:]
