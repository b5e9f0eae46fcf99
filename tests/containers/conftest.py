"""One image and one pod for all tests here: they look at what changes, and leave it as they found it."""

from collections.abc import Iterator

import pytest

from tests.containers.pod import ContainerPod, container_pod
from tests.containers.podman import Images, images, missing


@pytest.fixture(scope="session")
def built() -> Images:
    if (why := missing()) is not None:
        pytest.skip(why)
    return images()


@pytest.fixture(scope="session")
def pod(built: Images) -> Iterator[ContainerPod]:
    with container_pod(built) as running:
        running.start()
        yield running
