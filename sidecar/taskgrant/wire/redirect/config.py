"""What the kernel redirects, and whom it leaves alone (``redirect:`` in the configuration)."""

from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from taskgrant.wire.redirect.original import everywhere

Address = TypeVar("Address", IPv4Address, IPv6Address)
Port = Annotated[int, Field(ge=1, le=65535)]


def _redirected(address: Address) -> Address:
    """What is dialled there has to arrive at the sidecar, and be served."""
    if getattr(address, "ipv4_mapped", None) is not None:
        raise ValueError("is an address of IPv4")
    if (reason := everywhere(address)) is not None:
        raise ValueError(f"is refused: {reason}")
    return address


class RedirectConfig(BaseModel):
    """Of use only beside ``listen.transparent``, whose port TCP is redirected to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    uid: int = Field(
        1337, ge=1, le=0xFFFFFFFE, description="the uid of the sidecar: the only one that may dial out"
    )
    dns_port: Port = Field(15053, description="the port of this machine that name look-ups are redirected to")
    answer: Annotated[IPv4Address, AfterValidator(_redirected)] = Field(
        IPv4Address("192.0.2.1"),
        description="the address that look-ups of known names are answered with; nobody need be there",
    )
    answer6: Annotated[IPv6Address, AfterValidator(_redirected)] = Field(
        IPv6Address("2001:db8::1"), description="the same for IPv6"
    )
    local_ports: tuple[Port, ...] = Field(
        (),
        description="TCP ports of this machine that the agent's own processes may dial, at its own addresses",
    )
    inbound_ports: tuple[Port, ...] = Field(
        (),
        description="TCP ports on which connections from elsewhere are let in: a pod's probes, what an agent serves; "
        "answers go back by them, and nothing else does",
    )
