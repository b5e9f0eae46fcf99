"""The control API on its Unix socket: who connected → roles → route → authority.

The agent is the adversary: its uid must not have a role, the socket is never open to others, and between
bind and chmod nobody but the owner may connect.
"""

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Container
from pathlib import Path

from aiohttp import web

from taskgrant.api import problems
from taskgrant.api.config import ControlConfig
from taskgrant.api.handlers import PRINCIPAL, Handlers
from taskgrant.api.openapi import describe
from taskgrant.api.peers import Peers, peer_uid, resolve_gid
from taskgrant.api.routes import ROUTES, Route
from taskgrant.errors import ConfigurationError, Refused
from taskgrant.model.codes import Code
from taskgrant.model.ports import Authority

#: sun_path of unix(7) holds 108 bytes, the closing NUL included.
_MAX_PATH = 107
_BACKLOG = 128
#: For changes in progress; ending a task waits for its guards, each no longer than its staleness bound.
_GRACE_SECONDS = 5.0

_OWN_ORCHESTRATOR = (
    "control.roles: the agent's uid {uid} has the roles {roles}, so the agent could grant itself access; "
    "take them away, or set own_orchestrator: true if that is what you want"
)


class ControlServer:
    """The control API over an authority: ``start`` binds the socket, ``stop`` ends streams and removes it."""

    def __init__(
        self,
        authority: Authority,
        config: ControlConfig,
        *,
        agent_uids: Container[int] = (),
        own_orchestrator: bool = False,
        version: str = "0.1.0",
    ) -> None:
        """Raises ConfigurationError when an account is unknown, or when the agent has a role without
        leave."""
        self._config = config
        self._peers = Peers(config.roles)
        both = [] if own_orchestrator else sorted(uid for uid in self._peers.uids if uid in agent_uids)
        if both:
            raise ConfigurationError(
                [
                    _OWN_ORCHESTRATOR.format(uid=uid, roles=", ".join(sorted(self._peers.roles(uid))))
                    for uid in both
                ]
            )
        self._handlers = Handlers(authority, config, describe(ROUTES, version))
        self._runner: web.AppRunner | None = None
        self._bound: tuple[int, int] | None = None

    @property
    def socket_path(self) -> Path:
        return self._config.socket

    async def start(self) -> None:
        """Raises ConfigurationError when the socket cannot be had."""
        listener = _bind(self._config)
        status = os.stat(self._config.socket)
        self._bound = (status.st_dev, status.st_ino)
        # Cancelling a handler when its peer leaves ends event streams at once; changes are shielded from it.
        self._runner = web.AppRunner(
            self._application(),
            handler_cancellation=True,
            access_log=None,
            shutdown_timeout=1.0,
            auto_decompress=False,  # encoded bodies are refused, so none is ever unpacked
        )
        await self._runner.setup()
        await web.SockSite(self._runner, listener, backlog=_BACKLOG).start()

    async def stop(self) -> None:
        """No new connection; changes that run are answered if they end soon, and run to their end in any case."""
        if self._runner is None:
            return
        runner, self._runner = self._runner, None
        for site in tuple(runner.sites):
            await site.stop()
        if running := tuple(self._handlers.effects):
            await asyncio.wait(running, timeout=_GRACE_SECONDS)
        for stream in tuple(self._handlers.streams):
            stream.cancel()
        await runner.cleanup()
        while running := tuple(self._handlers.effects):
            await asyncio.wait(running)
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(self._config.socket)
            if (status.st_dev, status.st_ino) == self._bound:
                self._config.socket.unlink()

    def _application(self) -> web.Application:
        app = web.Application(
            middlewares=[problems.middleware, self._authenticate], client_max_size=self._config.body_limit
        )
        for route in ROUTES:
            app.router.add_route(route.method, route.path, self._handler(route))
        return app

    @web.middleware
    async def _authenticate(self, request: web.Request, handler: problems.Handler) -> web.StreamResponse:
        """Before anything else, also before an unknown path is called unknown."""
        transport = request.transport
        connection = transport.get_extra_info("socket") if transport is not None else None
        request[PRINCIPAL] = self._peers.principal(peer_uid(connection))
        return await handler(request)

    def _handler(self, route: Route) -> problems.Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            by = request[PRINCIPAL]
            if not by.roles & route.roles:
                needs = " or ".join(sorted(route.roles))
                raise Refused(Code.FORBIDDEN, f"{by.id} is not {needs}, which {route.name} needs")
            return await route.handler(self._handlers, request)

        return handle


def _bind(config: ControlConfig) -> socket.socket:
    path = config.socket
    if len(os.fsencode(path)) > _MAX_PATH:
        raise ConfigurationError([f"control.socket: {path} is longer than the {_MAX_PATH} bytes that fit"])
    try:
        gid = None if config.group is None else resolve_gid(config.group)
    except KeyError:
        raise ConfigurationError(
            [f"control.group: there is no group {config.group!r} on this machine"]
        ) from None
    try:
        _prepare_directory(path.parent, gid)
        _remove_stale(path)
        return _listen(path, config.mode, gid)
    except OSError as error:
        raise ConfigurationError(
            [f"control.socket: cannot listen on {path}: {error.strerror or error}"]
        ) from None


def _listen(path: Path, mode: int, gid: int | None) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    before = os.umask(0o177)
    try:
        listener.bind(os.fspath(path))
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    if gid is not None:
        os.chown(path, -1, gid)
    os.chmod(path, mode)
    return listener


def _prepare_directory(directory: Path, gid: int | None) -> None:
    if not directory.exists():
        directory.mkdir(parents=True, mode=0o700)
        if gid is not None:
            os.chown(directory, -1, gid)
            directory.chmod(0o750)
        return
    status = directory.stat()
    replaceable = status.st_mode & (stat.S_IWOTH | stat.S_IWGRP) and not status.st_mode & stat.S_ISVTX
    if status.st_uid not in (0, os.geteuid()) or replaceable:
        fault = (
            f"control.socket: others can replace files in {directory}; only its owner may be able to write it"
        )
        raise ConfigurationError([fault])


def _remove_stale(path: Path) -> None:
    """Removes what a process that died has left; refuses to take a socket that answers, or a file that
    is none."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigurationError([f"control.socket: {path} exists and is no socket"])
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise ConfigurationError([f"control.socket: another process answers on {path}"])
