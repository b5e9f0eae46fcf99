"""Errors as RFC 9457 problem documents, each with our code; and the one map from codes to HTTP statuses.

::

    {"type": "about:blank", "title": "Unprocessable Content", "status": 422, "code": "invalid",
     "detail": "…", "errors": [{"pointer": "/grants/0/tools", "detail": "Field required"}]}
"""

import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any

from aiohttp import web

from taskgrant.errors import Refused
from taskgrant.model.codes import Code

_log = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"

STATUSES: dict[Code, int] = {
    Code.NO_TASK: 404,
    Code.TASK_ENDED: 409,
    Code.HANDLE_INVALID: 403,
    Code.NO_GRANT: 403,
    Code.ARGUMENTS_REFUSED: 422,
    Code.GRANT_EXPIRED: 409,
    Code.USES_EXHAUSTED: 409,
    Code.RATE_LIMITED: 429,
    Code.PENDING_APPROVAL: 409,
    Code.DENIED_BY_POLICY: 403,
    Code.FROZEN: 409,
    Code.REVOKED: 409,
    Code.UNKNOWN_SERVER: 422,
    Code.UNKNOWN_OPERATION: 422,
    Code.MALFORMED: 400,
    Code.UNSUPPORTED: 415,
    Code.TOO_LARGE: 413,
    Code.MISDIRECTED: 421,
    Code.PEER_REFUSED: 403,
    Code.POLICY_ERROR: 503,
    Code.POLICY_UNAVAILABLE: 503,
    Code.AUTHORITY_UNAVAILABLE: 503,
    Code.AUDIT_UNAVAILABLE: 503,
    Code.CREDENTIAL_REFUSED: 502,
    Code.OVERLOADED: 503,
    Code.UPSTREAM_UNREACHABLE: 502,
    Code.OUTCOME_UNKNOWN: 502,
    Code.FORBIDDEN: 403,
    Code.NOT_FOUND: 404,
    Code.CONFLICT: 409,
    Code.INVALID: 422,
}


def status_of(code: str) -> int:
    """The HTTP status of a code; 500 for one that stands for no error or that a newer part made up."""
    try:
        return STATUSES.get(Code(code), 500)
    except ValueError:
        return 500


def document(status: int, code: str, detail: str, errors: Sequence[Any] = ()) -> dict[str, Any]:
    title = HTTPStatus(status).phrase
    problem: dict[str, Any] = {"type": "about:blank", "title": title, "status": status, "code": str(code)}
    problem["detail"] = detail
    if errors:
        problem["errors"] = list(errors)
    return problem


def from_refusal(refused: Refused) -> dict[str, Any]:
    """``details["errors"]`` are the places in the request that are at fault, each ``{pointer, detail}``."""
    status = int(refused.details.get("status") or status_of(refused.code))
    return document(status, refused.code, refused.reason, refused.details.get("errors") or ())


def response(problem: dict[str, Any], headers: dict[str, str] | None = None) -> web.Response:
    body = json.dumps(problem, ensure_ascii=False).encode()
    return web.Response(body=body, status=problem["status"], headers=headers, content_type=CONTENT_TYPE)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Whatever goes wrong below becomes a problem document; what nobody foresaw is logged and tells the
    peer nothing."""
    try:
        return await handler(request)
    except Refused as refused:
        return response(from_refusal(refused))
    except web.HTTPNotFound:
        return response(document(404, Code.NOT_FOUND, f"there is no {request.path[:200]}"))
    except web.HTTPMethodNotAllowed as wrong:
        allowed = ", ".join(sorted(wrong.allowed_methods))
        detail = f"{request.path[:200]} answers {allowed}"
        return response(document(405, Code.UNSUPPORTED, detail), {"Allow": allowed})
    except web.HTTPRequestEntityTooLarge as large:
        return response(document(413, Code.TOO_LARGE, large.text or "the body is too large"))
    except web.HTTPException as other:
        code = Code.MALFORMED if other.status < 500 else Code.AUTHORITY_UNAVAILABLE
        return response(document(other.status, code, other.reason))
    except Exception:
        _log.exception("the control API failed", extra={"method": request.method, "path": request.path})
        detail = "the authority failed in a way that was not foreseen; its log says how"
        return response(document(500, Code.AUTHORITY_UNAVAILABLE, detail))
