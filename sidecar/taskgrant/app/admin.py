"""The admin listener: ``/healthz`` (the process answers), ``/readyz`` (calls can be decided), ``/metrics``."""

from collections.abc import Callable

from aiohttp import web

from taskgrant.app.metrics import Metrics

_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class Admin:
    """``ready`` answers the reasons why calls cannot be decided now; none means ready."""

    def __init__(self, address: str, metrics: Metrics, ready: Callable[[], list[str]]) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._metrics = metrics
        self._ready = ready
        self._runner: web.AppRunner | None = None

    async def start(self) -> tuple[str, int]:
        """Binds, and answers the address that was bound."""
        application = web.Application()
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_get("/metrics", self._exposition)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host.strip("[]"), self._port)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        return host, port

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        waiting = self._ready()
        if waiting:
            return web.Response(status=503, text="".join(f"{reason}\n" for reason in waiting))
        return web.Response(text="ready\n")

    async def _exposition(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.exposition(), headers={"content-type": _TEXT})
