"""What the pipeline is made of: the ports and registries that its steps share, wired once by ``app``."""

from collections.abc import Mapping
from dataclasses import dataclass

from taskgrant.model.call import Call
from taskgrant.model.catalogue import Catalogue, Server
from taskgrant.model.decision import Decision
from taskgrant.model.grant import Grant
from taskgrant.model.ports import Codec, Decider, Exchange, Ledger, Recorder, View
from taskgrant.model.task import Task
from taskgrant.model.time import Clock
from taskgrant.proxy.config import ProxyConfig
from taskgrant.proxy.credentials import Credentials
from taskgrant.proxy.rate import RateLimiter
from taskgrant.proxy.rounds import Rounds
from taskgrant.proxy.telemetry import Telemetry
from taskgrant.wire.legs import Leg, Legs
from taskgrant.wire.upstream import HttpUpstream


@dataclass(frozen=True, slots=True)
class Parts:
    catalogue: Catalogue
    codecs: Mapping[str, Codec]  # by protocol
    view: View
    decider: Decider
    ledger: Ledger
    recorder: Recorder
    credentials: Credentials
    legs: Legs
    upstream: HttpUpstream
    rates: RateLimiter
    rounds: Rounds
    clock: Clock
    telemetry: Telemetry
    config: ProxyConfig
    body_limit: int


@dataclass(frozen=True, slots=True)
class Permitted:
    """A call that may pass, inside its leg: everything that forwarding it needs."""

    exchange: Exchange
    server: Server
    call: Call
    task: Task
    grant: Grant
    grants: tuple[Grant, ...]
    decision: Decision
    leg: Leg
