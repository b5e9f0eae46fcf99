"""Audit records: what happened, as one flat JSON object. Never a secret; arguments only as digests."""

from dataclasses import dataclass, field

from taskgrant.model.json import JsonObject
from taskgrant.model.time import Instant


@dataclass(frozen=True, slots=True)
class Record:
    """One thing that happened. ``event`` is dotted (``call.decided``, ``task.started``, ``credential.issued``)."""

    event: str
    at: Instant
    fields: JsonObject = field(default_factory=dict)
