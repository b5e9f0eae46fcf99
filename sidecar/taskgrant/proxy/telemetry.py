"""What the pipeline tells of itself. The process's metrics stand behind it (``app.metrics``)."""

from typing import Literal, Protocol

Stage = Literal["parse", "decide", "credential", "record", "upstream"]


class Telemetry(Protocol):
    def decided(self, code: str, server: str) -> None:
        """One decision, by code. ``server`` is a name from the catalogue or "" (never what a client sent)."""
        ...

    def observe(self, stage: Stage, seconds: float) -> None: ...
