"""An authority in a process of its own, for tests that kill it or take its disk away.

``python -m tests.authority.child MODE STATE_DIR …``; what it has to say goes to standard output, a line at a time.
"""

import asyncio
import resource
import sys
from dataclasses import replace
from pathlib import Path

from taskgrant.audit.trail import Trail
from taskgrant.errors import Refused
from taskgrant.model.call import Refusal
from taskgrant.model.ids import CallId, GrantId
from taskgrant.model.ports import Reservation
from taskgrant.model.task import Outcome
from tests.authority.support import (
    MAIL,
    ORCHESTRATOR,
    Cutter,
    Setting,
    new_csr,
    opened,
    record,
    spec,
)


def say(*words: object) -> None:
    print(*words, flush=True)  # noqa: T201


async def start(s: Setting, uses: int) -> None:
    started = await s.authority.start(spec(replace(MAIL, max_uses=uses)), ORCHESTRATOR, None)
    say(started.grants[0].id)


async def spend(s: Setting, grant: GrantId, name: str) -> None:
    """Reserves uses from many callers at once until there are none; settles some of them; then waits to be killed."""

    async def caller(number: int) -> None:
        for turn in range(1000):
            use = await s.authority.ledger.reserve(grant, CallId(f"{name}-{number}-{turn}"), None, record())
            if not isinstance(use, Reservation):
                return
            say("used")
            if number % 2:
                await s.authority.ledger.settle(use, True, record())

    await asyncio.gather(*(caller(number) for number in range(8)))
    say("over")
    await asyncio.Event().wait()


async def starve(s: Setting) -> None:
    """Starts a task, takes the disk away, and says what still works."""
    cutter = Cutter()
    s.authority.attach(cutter)
    started = await s.authority.start(spec(MAIL), ORCHESTRATOR, None)
    grant = started.grants[0].id
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    for number in range(3):
        use = await s.authority.ledger.reserve(grant, CallId(f"c{number}"), None, record())
        say("reserve", use.code.value if isinstance(use, Refusal) else "permitted")
    for doing in (
        s.authority.start(spec(MAIL), ORCHESTRATOR, None),
        s.authority.issue(started.task.id, "mail", new_csr()),
        s.authority.ledger.write(record()),
    ):
        try:
            await doing
            say("permitted")
        except Refused as refused:
            say("refused", refused.code)
    ended = await s.authority.end(started.task.id, Outcome.COMPLETE, ORCHESTRATOR)
    say("ended", ended.durable_at, len(cutter.applied))
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    await s.authority.ledger.write(record())
    say("again")


async def main(mode: str, directory: Path, *rest: str) -> None:
    trail = Trail(str(directory / "trail"))
    async with opened(directory / "state", trail=trail, staleness_seconds=0.2, fsync=rest[-1]) as s:
        match mode:
            case "start":
                await start(s, int(rest[0]))
            case "spend":
                await spend(s, GrantId(rest[0]), rest[1])
            case "starve":
                await starve(s)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]))
