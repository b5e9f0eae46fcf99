"""A tool server that costs next to nothing: HTTP/1.1 over mutual TLS, one MCP tool, revision 2026-07-28, no sessions.

``python -m bench.toolserver <directory> <trust domain> <server>``

It leaves its port in the directory's file ``port``, waits for the sidecar that runs there, enrols with its authority as
a guard does, and lets in only clients that show a certificate of it; then it makes a file ``serving``. What it answers
is made from what it was asked, so that an answer can be told from another call's. It ends when its starter does.
"""

import asyncio
import json
import os
import socket
import sys
from pathlib import Path
from typing import cast

import uvloop

from taskgrant.client.asynchronous import TaskgrantClient
from taskgrant.identity import contexts, csr, spiffe

_HEAD_END = b"\r\n\r\n"
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
_REFUSAL = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Connection(asyncio.Protocol):
    """Answers requests with a Content-Length, in the order in which they come."""

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(_HEAD_END)) >= 0:
            length = _content_length(self._buffer[: end + 2])
            if length is None:
                self._transport.write(_REFUSAL)
                self._transport.close()
                return
            body_at = end + len(_HEAD_END)
            if len(self._buffer) < body_at + length:
                return
            body = self._buffer[body_at : body_at + length]
            self._buffer = self._buffer[body_at + length :]
            self._transport.write(_answer(body))


def _content_length(head: bytes) -> int | None:
    at = head.lower().find(b"\r\ncontent-length:")
    if at < 0:
        return None
    value = head[at + 17 : head.index(b"\r\n", at + 17)].strip()
    return int(value) if value.isdigit() else None


def _answer(body: bytes) -> bytes:
    call = json.loads(body)
    text = f"{call['params']['arguments']['customer']}: 3 open orders"
    result = {"content": [{"type": "text", "text": text}], "isError": False, "resultType": "complete"}
    message = json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": result}).encode()
    return _ANSWER % (len(message), message)


async def serve(directory: Path, trust_domain: str, server: str) -> None:
    listening = socket.create_server(("127.0.0.1", 0), backlog=256)
    _leave(directory / "port", str(listening.getsockname()[1]))
    starter = os.getppid()
    addresses = directory / "run" / "addresses.json"
    while not addresses.exists():
        if os.getppid() != starter:
            return
        await asyncio.sleep(0.01)
    key = csr.new_key()
    async with TaskgrantClient(json.loads(addresses.read_text())["control"]) as authority:
        enrolled = await authority.enrol(server, key.csr(spiffe.guard_id(trust_domain, server)))
    context = contexts.server_context(enrolled.certificate, key, enrolled.bundle)
    await asyncio.get_running_loop().create_server(Connection, sock=listening, ssl=context)
    _leave(directory / "serving", "")
    await _until_alone(starter)


async def _until_alone(starter: int) -> None:
    while os.getppid() == starter:  # noqa: ASYNC110  # the kernel tells no event loop of it
        await asyncio.sleep(1)


def _leave(path: Path, text: str) -> None:
    """Written whole, then named: who finds it can read it."""
    draft = path.with_suffix(".new")
    draft.write_text(text)
    os.replace(draft, path)


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
