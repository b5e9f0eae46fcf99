"""The decision on one call: OPA is asked, and its permit is checked here once more before anything comes of it."""

from time import perf_counter

from taskgrant.errors import Refused
from taskgrant.model.call import Call, Kind
from taskgrant.model.codes import Code
from taskgrant.model.coverage import Compared, best_refusal, covers, excessive
from taskgrant.model.decision import Decision, Query
from taskgrant.model.grant import Grant
from taskgrant.model.json import JsonObject
from taskgrant.model.task import Task
from taskgrant.proxy.parts import Parts


def grants_of(parts: Parts, call: Call, task: Task) -> tuple[Grant, ...]:
    """The task's grants at this moment, as this call finds them."""
    return parts.rounds.as_continued(task.id, call, parts.view.live(task.id, parts.clock.now()))


async def decide(
    parts: Parts,
    call: Call,
    task: Task,
    grants: tuple[Grant, ...],
    compared: Compared,
    calls: int,
    request: JsonObject,
) -> Decision:
    """OPA's decision; what it cannot decide comes back as a denial with its code. ``compared`` is of these grants.

    Raises ``errors.Refused`` (arguments_refused) for arguments that are too much to compare: OPA would not stop at its
    deadline, so it is not asked.
    """
    if (gap := excessive(compared)) is not None:
        raise Refused(gap.code, gap.reason)
    started = perf_counter()
    decision = await parts.decider.decide(Query(call, task, grants, parts.clock.now(), calls, request))
    parts.telemetry.observe("decide", perf_counter() - started)
    return decision


def check_permit(
    parts: Parts, call: Call, grants: tuple[Grant, ...], compared: Compared, decision: Decision
) -> Grant:
    """The grant that a permit names: it must be this task's, live, and cover the call by our own reading too.

    ``grants`` are those of now, after the decision: what was revoked while OPA was asked does not count. Raises
    ``errors.Refused``. A permit that our own reading does not bear out is a fault of policy, and a denial.
    """
    if not decision.allow:
        raise Refused(decision.code, decision.reason, can_ask=decision.can_ask)
    chosen = next((grant for grant in grants if grant.id == decision.grant_id), None)
    if chosen is None or (call.kind is Kind.TOOL and chosen.id not in compared):
        raise Refused(
            Code.POLICY_ERROR, "policy permitted the call under a grant that this task does not have"
        )
    fault = covers(chosen, call, parts.clock.now(), compared)
    if fault is not None:
        telling = best_refusal((chosen,), call, parts.clock.now())
        raise Refused(telling.code, telling.reason)
    return chosen
