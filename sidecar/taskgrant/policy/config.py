"""The ``policy:`` section of the configuration::

policy:
  directories: [policy]          # your Rego and data, loaded beside ours
  deadline_ms: 250
  memory_mib: 256
  opa:
    binary: /usr/local/bin/opa   # default: $TASKGRANT_OPA, an opa on PATH, the one that tools/install-opa built
    # socket: /run/opa/opa.sock  # or: an OPA that runs already, with our policies and yours in it
"""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class OpaConfig(BaseModel):
    """Which OPA answers: one that we start, or one that runs already."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    binary: str | None = Field(None, min_length=1, description="the opa to start; default: one that is found")
    socket: Path | None = Field(
        None, description="Unix socket of an OPA that runs already; nothing is started"
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.binary is not None and self.socket is not None:
            raise ValueError("binary and socket exclude each other: an OPA is started here, or runs already")
        return self


class PolicyConfig(BaseModel):
    """OPA, what it loads, and what it may cost."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    opa: OpaConfig = Field(OpaConfig(), description="which OPA answers")
    directories: tuple[Path, ...] = Field(
        (), description="directories with your own Rego and data, loaded beside ours"
    )
    deadline_ms: int = Field(
        250,
        ge=1,
        le=10_000,
        description="milliseconds that OPA has for an answer; later is policy_unavailable",
    )
    memory_mib: int = Field(
        256,
        ge=128,
        le=65_536,
        description="memory that our OPA may use; beyond it OPA ends and is started anew",
    )

    @model_validator(mode="after")
    def _directories_are_ours_to_load(self) -> Self:
        if self.opa.socket is not None and self.directories:
            raise ValueError(
                "directories are loaded by the OPA that is started here, not by one behind a socket"
            )
        return self
