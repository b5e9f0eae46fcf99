"""The ``control:`` section of the configuration: where the control API listens and who may ask it what.

::

    control:
      socket: /run/taskgrant/control.sock
      mode: 0o660
      group: taskgrant
      roles:
        orchestrator: [1000, batch]
        approver: [alice]
"""

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from taskgrant.model.principal import Role


def _read_mode(value: object) -> object:
    """YAML reads ``0660`` as text or as a decimal, by version; the text forms ``0660`` and ``0o660``
    are octal here."""
    if isinstance(value, str):
        try:
            return int(value, 8)
        except ValueError:
            raise ValueError(f"{value!r} is no octal file mode such as '0660'") from None
    return value


def _closed_to_others(mode: int) -> int:
    if mode & ~0o770:
        raise ValueError(f"{mode:#o} gives others access, or sets special bits")
    return mode


def _own_uid() -> dict[Role, tuple[int | str, ...]]:
    return {role: (os.getuid(),) for role in Role}


Account = Annotated[int | str, Field(union_mode="left_to_right")]


class ControlConfig(BaseModel):
    """Where the control API listens, and the roles of those who may connect. A uid without a role is
    refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    socket: Path = Field(
        default=Path("/run/taskgrant/control.sock"),
        description="Path of the Unix socket; its directory is made (0700, or 0750 with a group) if missing.",
    )
    mode: Annotated[int, BeforeValidator(_read_mode), AfterValidator(_closed_to_others)] = Field(
        default=0o660, description="File mode of the socket; others never have access."
    )
    group: Account | None = Field(
        default=None, description="Group (name or gid) that owns the socket and its directory."
    )
    roles: dict[Role, tuple[Account, ...]] = Field(
        default_factory=_own_uid,
        description="For each role, the uids or user names that have it. Default: our own uid has all.",
    )
    body_limit: int = Field(
        default=1 << 20, ge=1024, le=64 << 20, description="Largest request body, in bytes."
    )
    ping_interval: float = Field(
        default=10.0, gt=0, le=60, description="Seconds between comments on a silent event stream."
    )
