"""The ``audit`` section of the configuration."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class AuditConfig(BaseModel):
    """Where audit records go, and when they are on the disk."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str = Field(
        default="audit.jsonl",
        min_length=1,
        description='The file that records are appended to, one JSON object a line; "-" is standard output.',
    )
    fsync: Literal["interval", "always"] = Field(
        default="interval",
        description=(
            '"interval": a record is with the kernel before its effect, and on the disk at most 1 s later. '
            '"always": it is on the disk before its effect; each call waits for the disk.'
        ),
    )
