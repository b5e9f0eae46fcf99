"""A refusal in one or two plain sentences, for a model or a person. Never what would have been allowed."""

from taskgrant.model.call import Refusal
from taskgrant.model.codes import Code

#: Refusals that time alone may end.
_PASSING = frozenset(
    {
        Code.RATE_LIMITED,
        Code.PENDING_APPROVAL,
        Code.POLICY_UNAVAILABLE,
        Code.AUTHORITY_UNAVAILABLE,
        Code.AUDIT_UNAVAILABLE,
        Code.OVERLOADED,
        Code.UPSTREAM_UNREACHABLE,
    }
)


def outcome_unknown(refusal: Refusal) -> bool:
    """Whether this is no refusal at all: the tool has, or may have, received the call."""
    return refusal.begun or refusal.code is Code.OUTCOME_UNKNOWN


def sentence(what: str, refusal: Refusal) -> str:
    """What was refused, why, and whether it can be asked for; or, in other words, that the outcome is unknown."""
    why = refusal.reason.strip().rstrip(".") or "no reason was given"
    if refusal.begun:
        return (
            f"{what} was interrupted: {why}. The tool had already received the call, so its outcome is unknown: "
            "it may have taken effect, and this is not a refusal."
        )
    if outcome_unknown(refusal):
        return (
            f"The outcome of {what} is unknown: {why}. It may have taken effect, and this is not a refusal."
        )
    if refusal.can_ask:
        hope = "Access to it can be asked for."
    elif refusal.code in _PASSING:
        hope = "It may be tried again later."
    else:
        hope = "It cannot be asked for from here."
    return f"{what} was refused: {why}. {hope}"
