import time
from collections.abc import AsyncIterator

import pytest

from tests.guard.support import TestAuthority, ToolServer, tool_server
from tests.identity.support import Domain, SetClock


@pytest.fixture
def clock() -> SetClock:
    """Stands at the real time, since OpenSSL reads the real one."""
    return SetClock(float(int(time.time())))


@pytest.fixture
def domain(clock: SetClock) -> Domain:
    return Domain(clock)


@pytest.fixture
async def authority(domain: Domain) -> TestAuthority:
    return TestAuthority(domain)


@pytest.fixture
async def tools() -> AsyncIterator[ToolServer]:
    async with tool_server() as server:
        yield server
