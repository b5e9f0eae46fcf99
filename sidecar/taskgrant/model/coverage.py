"""Does a grant cover a call? One pure, exact function; policy is asked the same question, and both must say yes.

What is compared, in this order; the first that fails is what the grant lacks (``covers``):

===============  =============================================================  ========================================
what             covered if                                                     otherwise
===============  =============================================================  ========================================
server           equal, byte by byte                                            no_grant
tool             named in ``tools``, byte by byte: no globs, no case folding    no_grant
state and time   active, before ``expires_at``, uses left                       revoked · grant_expired · no_grant (it
                                                                                was rejected) · pending_approval ·
                                                                                uses_exhausted, in this order
arguments        every schema in ``schemas`` is satisfied (``model.matching``)  arguments_refused, with a JSON pointer
===============  =============================================================  ========================================

Calls that use no tool (list, stream, notice, answer; a session call is never asked about) need some grant for the
server that is active, or whose last use is still in flight, and not past ``expires_at``: ``covers_server``.

What to say when no grant covers a call (``best_refusal``), most telling first; a grant that is over counts only if it
would have covered these very arguments, else it is as good as absent:

    arguments_refused, too much to compare · pending_approval · uses_exhausted · grant_expired · revoked ·
    arguments_refused (by a live or a pending grant) · no_grant
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from taskgrant.model.call import Call, Kind, Refusal
from taskgrant.model.codes import Code
from taskgrant.model.grant import Grant, GrantState
from taskgrant.model.ids import GrantId
from taskgrant.model.matching import Miss, misses
from taskgrant.model.time import Instant


@dataclass(frozen=True, slots=True)
class Gap:
    """What a grant lacks for a call: for people and logs. ``pointer`` points into the arguments."""

    code: Code
    reason: str
    pointer: str = ""


_TELLING = (
    Code.PENDING_APPROVAL,
    Code.USES_EXHAUSTED,
    Code.GRANT_EXPIRED,
    Code.REVOKED,
    Code.ARGUMENTS_REFUSED,
)
_REASONS = {
    Code.PENDING_APPROVAL: "a grant for this call waits for approval",
    Code.USES_EXHAUSTED: "the grant for this call has no uses left",
    Code.GRANT_EXPIRED: "the grant for this call has expired",
    Code.REVOKED: "the grant for this call was revoked",
    Code.ARGUMENTS_REFUSED: "this task may use the tool, but not with these arguments",
    Code.NO_GRANT: "nothing in this task grants this call",
}
_EXCESSIVE = "the arguments are too large or too deeply nested to be compared with what is granted"


#: What a call's arguments lack for each grant that names its tool: None where nothing.
Compared = Mapping[GrantId, Miss | None]


def compare(grants: Iterable[Grant], call: Call) -> Compared:
    """The arguments against each grant that names the tool. Neither changes while a call is decided on, so once is
    enough; states and times do, and are no part of it.
    """
    return {grant.id: _miss(grant, call) for grant in grants if _names(grant, call)}


def covers(grant: Grant, call: Call, now: Instant, compared: Compared | None = None) -> Gap | None:
    """None when the grant covers the call now; otherwise the first thing that it lacks.

    ``compared`` is what ``compare`` said of this very grant and call.
    """
    if call.kind is not Kind.TOOL:
        return covers_server(grant, call.server, now)
    if not _names(grant, call):
        return Gap(Code.NO_GRANT, f"names neither {call.tool!r} nor its server")
    if (gap := _over(grant, now)) is not None:
        return gap
    miss = _miss(grant, call) if compared is None else compared[grant.id]
    return None if miss is None else Gap(Code.ARGUMENTS_REFUSED, miss.reason, miss.pointer)


def covers_server(grant: Grant, server: str, now: Instant) -> Gap | None:
    """The same for calls that use no tool: a live grant for the server suffices."""
    if grant.server != server:
        return Gap(Code.NO_GRANT, "is for another server")
    gap = _over(grant, now)
    if gap is not None and gap.code is Code.USES_EXHAUSTED and grant.in_flight > 0 and now < grant.expires_at:
        return None
    return gap


def best_refusal(grants: Iterable[Grant], call: Call, now: Instant) -> Refusal:
    """What to tell the agent about a call that no grant of its task covers: never which values would have passed."""
    codes = set()
    for grant in grants:
        if call.kind is not Kind.TOOL:
            gap = covers_server(grant, call.server, now)
            if gap is not None and grant.server == call.server:
                codes.add(gap.code)
            continue
        if not _names(grant, call):
            continue
        over = _over(grant, now)
        miss = _miss(grant, call)
        if miss is not None and miss.excessive:
            return Refusal(Code.ARGUMENTS_REFUSED, _EXCESSIVE)
        if miss is None and over is not None:
            codes.add(over.code)
        elif miss is not None and (over is None or over.code is Code.PENDING_APPROVAL):
            codes.add(Code.ARGUMENTS_REFUSED)
    code = next((code for code in _TELLING if code in codes), Code.NO_GRANT)
    return Refusal(code, _REASONS[code])


def excessive(compared: Compared) -> Gap | None:
    """A bound that the arguments break for a grant that names the tool: such a call is refused before OPA is asked."""
    for miss in compared.values():
        if miss is not None and miss.excessive:
            return Gap(Code.ARGUMENTS_REFUSED, miss.reason, miss.pointer)
    return None


def _names(grant: Grant, call: Call) -> bool:
    return grant.server == call.server and call.tool is not None and call.tool in grant.tools


def _over(grant: Grant, now: Instant) -> Gap | None:
    """Why the grant admits no new call at this moment, whatever the call."""
    if grant.state is GrantState.REVOKED:
        return Gap(Code.REVOKED, "was revoked")
    # Written so that an instant that compares with nothing (NaN) counts as expired.
    if grant.state is GrantState.EXPIRED or not now < grant.expires_at:
        return Gap(Code.GRANT_EXPIRED, "has expired")
    if grant.state is GrantState.REJECTED:
        return Gap(Code.NO_GRANT, "was rejected")
    if grant.state is GrantState.PENDING:
        return Gap(Code.PENDING_APPROVAL, "waits for approval")
    if grant.state is not GrantState.ACTIVE or (grant.remaining is not None and grant.remaining <= 0):
        return Gap(Code.USES_EXHAUSTED, "has no uses left")
    return None


def _miss(grant: Grant, call: Call) -> Miss | None:
    if not grant.schemas:
        # A grant always has its own schema. One without was damaged, and must not admit everything.
        return Miss("", "the grant has no schema")
    for schema in grant.schemas:
        found = misses(schema, call.arguments)
        if found:
            return found[0]
    return None
