import time

import pytest

from tests.identity.support import Domain, SetClock


@pytest.fixture
def clock() -> SetClock:
    """Stands at the real time, since OpenSSL reads the real one."""
    return SetClock(float(int(time.time())))


@pytest.fixture
def domain(clock: SetClock) -> Domain:
    return Domain(clock)
