"""The section's defaults, and that it takes nothing else."""

from typing import Any

import pytest
from pydantic import ValidationError

from taskgrant.audit.config import AuditConfig


def test_defaults() -> None:
    assert AuditConfig() == AuditConfig(file="audit.jsonl", fsync="interval")


@pytest.mark.parametrize("section", [{"fsync": "never"}, {"file": ""}, {"path": "x"}])
def test_refused(section: Any) -> None:
    with pytest.raises(ValidationError):
        AuditConfig.model_validate(section)
