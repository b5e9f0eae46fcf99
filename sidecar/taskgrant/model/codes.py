"""Why a call or a request was allowed or refused: one stable word each, the same in answers, records and metrics.

``docs/codes.md`` explains each to operators. Codes are added, never renamed.
"""

from enum import StrEnum


class Code(StrEnum):
    GRANTED = "granted"

    # The task and its grants
    NO_TASK = "no_task"
    TASK_ENDED = "task_ended"
    HANDLE_INVALID = "handle_invalid"
    NO_GRANT = "no_grant"
    ARGUMENTS_REFUSED = "arguments_refused"
    GRANT_EXPIRED = "grant_expired"
    USES_EXHAUSTED = "uses_exhausted"
    RATE_LIMITED = "rate_limited"
    PENDING_APPROVAL = "pending_approval"
    DENIED_BY_POLICY = "denied_by_policy"
    FROZEN = "frozen"
    REVOKED = "revoked"

    # What was sent
    UNKNOWN_SERVER = "unknown_server"
    UNKNOWN_OPERATION = "unknown_operation"
    MALFORMED = "malformed"
    UNSUPPORTED = "unsupported"
    TOO_LARGE = "too_large"
    MISDIRECTED = "misdirected"  # two places name different servers (SNI, Host, what was dialled)
    PEER_REFUSED = "peer_refused"  # the client socket is not the agent's

    # What could not be asked or done
    POLICY_ERROR = "policy_error"
    POLICY_UNAVAILABLE = "policy_unavailable"
    AUTHORITY_UNAVAILABLE = "authority_unavailable"
    AUDIT_UNAVAILABLE = "audit_unavailable"
    CREDENTIAL_REFUSED = "credential_refused"  # a tool or its guard refused our credential (401/403)
    OVERLOADED = "overloaded"  # a bound of the sidecar itself (connections, calls in flight) was reached
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    OUTCOME_UNKNOWN = "outcome_unknown"

    # The control API
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    INVALID = "invalid"
