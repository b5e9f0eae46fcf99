"""Refusals in gRPC's own terms: a status and a message (trailers only, beside HTTP's 200), and our code beside them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final
from urllib.parse import quote

from taskgrant.model.call import Call, Headers, Malformed, Refusal
from taskgrant.model.codes import Code
from taskgrant.protocols.wording import outcome_unknown, sentence

UNKNOWN: Final = 2
PERMISSION_DENIED: Final = 7
UNAUTHENTICATED: Final = 16
_INVALID_ARGUMENT, _RESOURCE_EXHAUSTED, _UNIMPLEMENTED, _INTERNAL, _UNAVAILABLE = 3, 8, 12, 13, 14

STATUS: Mapping[Code, int] = MappingProxyType(
    {
        Code.MALFORMED: _INVALID_ARGUMENT,
        Code.UNKNOWN_SERVER: _UNIMPLEMENTED,
        Code.UNKNOWN_OPERATION: _UNIMPLEMENTED,
        Code.UNSUPPORTED: _UNIMPLEMENTED,
        Code.TOO_LARGE: _RESOURCE_EXHAUSTED,
        Code.RATE_LIMITED: _RESOURCE_EXHAUSTED,
        Code.OVERLOADED: _RESOURCE_EXHAUSTED,
        Code.POLICY_ERROR: _INTERNAL,
        Code.CREDENTIAL_REFUSED: _INTERNAL,
        Code.POLICY_UNAVAILABLE: _UNAVAILABLE,
        Code.AUTHORITY_UNAVAILABLE: _UNAVAILABLE,
        Code.AUDIT_UNAVAILABLE: _UNAVAILABLE,
        Code.UPSTREAM_UNREACHABLE: _UNAVAILABLE,
        Code.OUTCOME_UNKNOWN: UNKNOWN,  # not UNAVAILABLE, which clients may try again by themselves
    }
)


def trailers(call: Call | Malformed, refusal: Refusal) -> Headers:
    """``grpc-message`` is percent-encoded, as gRPC over HTTP/2 has it."""
    code = Code.OUTCOME_UNKNOWN if outcome_unknown(refusal) else refusal.code
    told = sentence(f'"{call.tool}"' if isinstance(call, Call) else "The request", refusal)
    return (
        ("grpc-status", str(STATUS.get(code, PERMISSION_DENIED))),
        ("grpc-message", quote(told, safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}")),
        ("taskgrant-code", code),
    )
