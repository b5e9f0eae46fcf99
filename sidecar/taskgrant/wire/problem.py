"""Refusals of the listener itself, as ``application/problem+json`` (RFC 9457) with our code."""

import json
from http import HTTPStatus

from taskgrant.model.call import Answer
from taskgrant.model.codes import Code

_STATUS = {
    Code.PEER_REFUSED: 403,
    Code.HANDLE_INVALID: 403,
    Code.FORBIDDEN: 403,
    Code.UNKNOWN_SERVER: 404,
    Code.TOO_LARGE: 413,
    Code.MISDIRECTED: 421,
    Code.UNSUPPORTED: 501,
    Code.OVERLOADED: 503,
}


def problem(code: Code, detail: str, status: int | None = None) -> Answer:
    """The answer for a refusal; without ``status``, the one that goes with the code (400 for most)."""
    status = status or _STATUS.get(code, 400)
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    return Answer(status, "application/problem+json", json.dumps(body).encode())
