"""A request's body and query: bounded, decoded strictly, validated with every fault named at once."""

from collections.abc import Sequence
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from taskgrant.errors import Refused
from taskgrant.model.codes import Code
from taskgrant.model.decoding import decode
from taskgrant.model.json import Json

Model = TypeVar("Model", bound=BaseModel)

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"

DEFAULT_PAGE = 100
MAX_PAGE = 1000
_MAX_KEY = 255


async def read(request: web.Request, model: type[Model], limit: int, form: bool = False) -> Model:
    """The body as ``model``. An absent body is an empty object. ``form``: a form is taken too (RFC 7662,
    section 2.1).

    Raises Refused: too_large, unsupported (another content type), malformed (no JSON), invalid (does not
    fit).
    """
    raw = await _bounded(request, limit)
    if not raw:
        return validate({}, model)
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise Refused(Code.UNSUPPORTED, "send the body without a content encoding")
    if form and request.content_type == FORM:
        return validate(_fields(await request.post()), model)
    if request.content_type != JSON:
        raise Refused(Code.UNSUPPORTED, f"send the body as {JSON}, not {request.content_type[:80]}")
    try:
        value = decode(raw)
    except ValueError as error:
        raise Refused(Code.MALFORMED, f"the body is refused: {error}") from None
    return validate(value, model)


async def _bounded(request: web.Request, limit: int) -> bytes:
    if (request.content_length or 0) > limit:
        raise Refused(Code.TOO_LARGE, f"the body is larger than {limit} bytes")
    return await request.read()  # bounded by the application's client_max_size, for chunked bodies too


def _fields(posted: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in posted.items():
        if name in fields:
            raise Refused(Code.MALFORMED, f"the body is refused: the name {name[:80]!r} is given twice")
        fields[name] = value
    return fields


def validate(value: Json, model: type[Model]) -> Model:
    """Raises Refused (invalid) that lists each fault by JSON pointer, never the value at fault."""
    try:
        return model.model_validate(value, strict=True)
    except ValidationError as error:
        faults = [
            {"pointer": _pointer(fault["loc"]), "detail": fault["msg"]}
            for fault in error.errors(include_url=False, include_input=False, include_context=False)
        ]
    detail = f"{faults[0]['pointer'] or 'the body'}: {faults[0]['detail']}"
    if len(faults) > 1:
        detail += f" (and {len(faults) - 1} more)"
    raise Refused(Code.INVALID, detail, errors=faults)


def _pointer(location: Sequence[int | str]) -> str:
    """RFC 6901."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in location)


def idempotency_key(request: web.Request) -> str | None:
    """The Idempotency-Key, one line of visible ASCII. Raises Refused (malformed)."""
    keys = request.headers.getall("Idempotency-Key", [])
    if not keys:
        return None
    key = keys[0]
    if len(keys) > 1 or not 0 < len(key) <= _MAX_KEY or not key.isascii() or not key.isprintable():
        raise Refused(
            Code.MALFORMED, f"Idempotency-Key is not one value of 1 to {_MAX_KEY} visible characters"
        )
    return key


def parameters(request: web.Request, known: frozenset[str]) -> dict[str, str]:
    """The query's parameters, each at most once. Raises Refused (invalid) for others."""
    faults = [
        {"pointer": "", "detail": f"the query parameter {name[:80]!r} is {trouble}"}
        for name in dict.fromkeys(request.query)
        for trouble in _parameter_troubles(request, name, known)
    ]
    if faults:
        raise Refused(Code.INVALID, "; ".join(fault["detail"] for fault in faults), errors=faults)
    return dict(request.query)


def _parameter_troubles(request: web.Request, name: str, known: frozenset[str]) -> list[str]:
    if name not in known:
        return ["unknown"]
    return ["given twice"] if len(request.query.getall(name)) > 1 else []


def page(query: dict[str, str]) -> tuple[str | None, int]:
    """``?after=&limit=`` → where the page starts, and its length. Raises Refused (invalid)."""
    text = query.get("limit", str(DEFAULT_PAGE))
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MAX_PAGE):
        raise Refused(Code.INVALID, f"limit is not a number from 1 to {MAX_PAGE}")
    return query.get("after") or None, int(text)
