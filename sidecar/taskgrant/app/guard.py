"""``taskgrant guard``: wires the guard to the authority's control API over its Unix socket."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from taskgrant.app.hardening import harden
from taskgrant.app.starting import asked_by
from taskgrant.audit.logs import setup_logging
from taskgrant.authority.clock import SystemClock
from taskgrant.client.asynchronous import TaskgrantClient
from taskgrant.errors import ConfigurationError
from taskgrant.guard.config import GuardConfig
from taskgrant.guard.server import serve
from taskgrant.guard.stdio import child_environment


def configured(options: Mapping[str, Any]) -> GuardConfig:
    """The command line's options as the guard's configuration. Raises ``ConfigurationError`` with every fault."""
    told = dict(options)
    try:
        told["environment"] = child_environment(os.environ, told.get("environment", ()))
    except ValueError as wrong:
        raise ConfigurationError([f"guard: environment: {wrong}"]) from None
    command = told.get("command")
    if command and shutil.which(command[0], path=told["environment"].get("PATH")) is None:
        raise ConfigurationError([f"guard: command: there is no program {command[0]!r}"])
    try:
        return GuardConfig.model_validate(told)
    except ValidationError as wrong:
        faults = [
            (".".join(map(str, fault["loc"])), fault["msg"].removeprefix("Value error, "))
            for fault in wrong.errors(include_input=False)
        ]
        raise ConfigurationError(
            [f"guard: {name or 'options'}: {reason}" for name, reason in faults]
        ) from None


def run(config: GuardConfig, socket: Path) -> int:
    """Runs until SIGTERM or SIGINT. Nothing is let in before the authority has answered."""
    import uvloop

    setup_logging(sys.stderr)
    harden()
    uvloop.run(_main(config, socket))
    return 0


async def _main(config: GuardConfig, socket: Path) -> None:
    loop = asyncio.get_running_loop()
    async with TaskgrantClient(socket) as authority:
        serving = asyncio.ensure_future(serve(config, authority, clock=SystemClock()))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, serving.cancel)
        try:
            with asked_by("guard: listen", config.listen):
                await serving
        except asyncio.CancelledError:
            if not serving.cancelled():
                raise
