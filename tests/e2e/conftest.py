"""Fixtures of the end-to-end tests."""

import pytest

from taskgrant.client import TaskgrantClient
from tests.e2e.office import Office
from tests.e2e.processes import installation


@pytest.fixture
def place(tmp_path, opa_binary):
    """An installation that nothing runs in yet."""
    with installation(tmp_path, opa_binary) as installed:
        yield installed


@pytest.fixture
def office(place):
    """The usual: a real MCP tool server, a guard in front of it, the sidecar; all running."""
    return Office.start(place)


@pytest.fixture
async def orchestrator(office):
    async with TaskgrantClient(office.place.control) as client:
        yield client
