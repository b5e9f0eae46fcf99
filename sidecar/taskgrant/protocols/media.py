"""Media types in request headers: which bodies we read, what a client can take (RFC 9110, sections 8.3 and 12.5)."""

from collections.abc import Mapping

from taskgrant.model.call import Head
from taskgrant.model.codes import Code
from taskgrant.model.json import Json
from taskgrant.protocols import strictjson


class BodyFault(ValueError):
    """A body that is none that we read. ``str()`` says why."""

    def __init__(self, code: Code, why: str) -> None:
        super().__init__(why)
        self.code = code


def json_object(head: Head, body: bytes) -> dict[str, Json]:
    """The members of a body that is there. Raises BodyFault, and JsonFault for what is no strict JSON."""
    if (fault := json_fault(dict(head.headers))) is not None:
        raise BodyFault(Code.UNSUPPORTED, fault)
    value = strictjson.decode(body)
    if not isinstance(value, dict):
        raise BodyFault(Code.MALFORMED, "the body must be a JSON object")
    return value


def json_fault(headers: Mapping[str, str]) -> str | None:
    """Why a body is none that we read: anything but plain ``application/json`` in UTF-8. None when it is fine."""
    if headers.get("content-encoding") is not None:
        return "bodies with a content encoding are not read"
    media, _, parameters = headers.get("content-type", "").partition(";")
    if media.strip(" \t").lower() != "application/json":
        return "the body must be application/json"
    if parameters:
        name, _, value = parameters.strip(" \t").partition("=")
        if name.lower() != "charset" or value.strip('"').lower() != "utf-8":
            return "the body must be application/json in UTF-8"
    return None


def accepts(accept: str, media: str) -> bool:
    """Whether an Accept header names the media type, or every type of its kind."""
    wanted = {media, media.partition("/")[0] + "/*", "*/*"}
    return any(part.partition(";")[0].strip(" \t").lower() in wanted for part in accept.split(","))
