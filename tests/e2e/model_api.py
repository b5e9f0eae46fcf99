"""A model API that the agent knows by a key of its own: HTTPS, answers whole or as a stream, and remembers all."""

import asyncio
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from taskgrant.authority.clock import SystemClock
from taskgrant.identity.leaves import LeafContexts
from taskgrant.identity.pod_ca import PodCa

BLOCK = b"x" * 65536


@dataclass
class ModelApi:
    """``roots`` vouch for it, under the name localhost."""

    port: int
    roots: Path
    requests: list[dict[str, Any]] = field(default_factory=list)
    stop: Callable[[], object] = lambda: None

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        seen = {"method": request.method, "target": request.raw_path, "body": body}
        self.requests.append(
            seen | {"headers": {name.lower(): value for name, value in request.headers.items()}}
        )
        if request.path == "/blob":
            return await self._blob(request)
        if b'"stream":true' in body:
            return await self._stream(request)
        return web.Response(
            body=b'{"answer":42}', content_type="application/json", headers={"set-cookie": "a=b"}
        )

    async def _stream(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        number = 0
        while True:
            await response.write(b"data: token %d\n\n" % number)
            number += 1
            await asyncio.sleep(0.02)

    async def _blob(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "application/octet-stream"})
        await response.prepare(request)
        for _ in range(int(request.query["blocks"])):
            await response.write(BLOCK)
        return response


@contextmanager
def model_api(directory: Path) -> Iterator[ModelApi]:
    """In a thread of its own, with a loop of its own."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        clock = SystemClock()
        ca = PodCa.open(Path(memory), clock)
        roots = directory / "roots.pem"
        roots.write_bytes(ca.certificate)
        context = LeafContexts(ca, clock).of("localhost")
        context.set_alpn_protocols(["http/1.1"])  # which is what it speaks
        api, started = ModelApi(0, roots), threading.Event()
        thread = threading.Thread(target=asyncio.run, args=(_serve(api, context, started),), daemon=True)
        thread.start()
        assert started.wait(10)
        try:
            yield api
        finally:
            api.stop()
            thread.join(10)


async def _serve(api: ModelApi, context: ssl.SSLContext, started: threading.Event) -> None:
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    api.stop = lambda: loop.call_soon_threadsafe(stopped.set)
    runner = web.ServerRunner(web.Server(api.serve), handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "localhost", 0, ssl_context=context).start()
    api.port = runner.addresses[0][1]
    started.set()
    await stopped.wait()
    await runner.cleanup()
