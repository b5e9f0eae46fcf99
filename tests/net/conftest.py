"""One pod for all tests here: they look at what changes, and leave it as they found it."""

import os
from collections.abc import Iterator

import pytest

from tests.net.pod import Pod
from tests.net.pod import pod as a_pod


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() != 0:
        for item in items:
            if "/tests/net/" in str(item.path):
                item.add_marker(pytest.mark.skip(reason="makes network namespaces, which takes root"))


@pytest.fixture(scope="session")
def pod(opa_binary) -> Iterator[Pod]:
    with a_pod(opa_binary) as running:
        running.start()
        yield running
