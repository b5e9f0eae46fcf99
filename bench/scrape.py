"""The sidecar's own account of where time goes: the sums of its stage histogram, read from ``/metrics``."""

import re
import urllib.request
from dataclasses import dataclass

_LINE = re.compile(r'taskgrant_stage_seconds_(sum|count)\{stage="(\w+)"\} (\S+)')
_SECONDS = 10

STAGES = ("parse", "decide", "credential", "record", "upstream")


@dataclass(frozen=True, slots=True)
class Stages:
    """Seconds spent in each stage, and how often each was passed."""

    seconds: dict[str, float]
    counts: dict[str, float]

    def since(self, before: "Stages") -> "Stages":
        return Stages(
            {stage: self.seconds[stage] - before.seconds[stage] for stage in STAGES},
            {stage: self.counts[stage] - before.counts[stage] for stage in STAGES},
        )

    def per_call(self) -> dict[str, float]:
        """Mean seconds by stage. The sidecar's ``upstream`` spans from asking for a connection to the answer's end, and
        so contains ``record``, which is taken out here.
        """
        calls = self.counts["upstream"]
        mean = {stage: self.seconds[stage] / calls for stage in STAGES}
        mean["upstream"] -= mean["record"]
        return mean


def stages(admin: str) -> Stages:
    with urllib.request.urlopen(f"{admin}/metrics", timeout=_SECONDS) as answer:  # noqa: S310
        text = answer.read().decode()
    seconds, counts = dict.fromkeys(STAGES, 0.0), dict.fromkeys(STAGES, 0.0)
    for kind, stage, value in _LINE.findall(text):
        (seconds if kind == "sum" else counts)[stage] = float(value)
    return Stages(seconds, counts)
