import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from tests.wire.support import Rig, Trust, rigged


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Everything here is tried on both loops: how a transport aborts is the loop's own."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def trust() -> Trust:
    return Trust()


@pytest.fixture
async def rig(trust: Trust) -> AsyncIterator[Rig]:
    async with rigged(trust) as rig:
        yield rig
