import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from taskgrant.cli.main import cli
from tests.api.support import Served, served

Command = Callable[..., Awaitable[Result]]


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as running:
        yield running


@pytest.fixture
def taskgrant(api: Served) -> Command:
    """The command, run in a thread while the API serves from this one."""

    async def run(*arguments: str) -> Result:
        line = ["--socket", str(api.socket), *arguments]
        return await asyncio.to_thread(CliRunner().invoke, cli, line, prog_name="taskgrant")

    return run
