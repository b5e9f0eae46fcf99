"""A real OPA, with our policies and an author's boundary."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from taskgrant.policy.config import OpaConfig, PolicyConfig
from taskgrant.policy.process import PolicyEngine, policy_engine
from tests.policy.make import policy

Start = Callable[..., AbstractAsyncContextManager[PolicyEngine]]


@pytest.fixture
def start(tmp_path: Path, opa_binary: Path) -> Start:
    """Starts an engine: `start(deny="package …", deadline_ms=…, on_state=…)`."""

    def starts(
        on_state: Callable[[Any], None] = lambda _: None,
        deadline_ms: int = 5000,
        memory_mib: int = 256,
        **files: str,
    ) -> AbstractAsyncContextManager[PolicyEngine]:
        config = PolicyConfig(
            opa=OpaConfig(binary=str(opa_binary)),
            directories=(policy(tmp_path / "policy", **files),),
            deadline_ms=deadline_ms,
            memory_mib=memory_mib,
        )
        return policy_engine(config, on_state=on_state)

    return starts


@pytest.fixture
async def engine(start: Start) -> AsyncIterator[PolicyEngine]:
    async with start() as engine:
        yield engine
