"""What the kernel redirects, and whom it leaves alone (``redirect:`` in the configuration)."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Port = Annotated[int, Field(ge=1, le=65535)]


class RedirectConfig(BaseModel):
    """Of use only beside ``listen.transparent``, whose port TCP is redirected to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    uid: int = Field(
        1337, ge=1, le=0xFFFFFFFE, description="the uid of the sidecar: the only one that may dial out"
    )
    dns_port: Port = Field(15053, description="the port of this machine that name look-ups are redirected to")
    local_ports: tuple[Port, ...] = Field(
        (),
        description="TCP ports of this machine that the agent's own processes may dial, at its own addresses",
    )
