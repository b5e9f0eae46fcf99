from collections.abc import AsyncIterator

import pytest

from tests.wire.support import Rig, Trust, rigged


@pytest.fixture(scope="session")
def trust() -> Trust:
    return Trust()


@pytest.fixture
async def rig(trust: Trust) -> AsyncIterator[Rig]:
    async with rigged(trust) as rig:
        yield rig
