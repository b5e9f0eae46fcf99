"""Media types in request headers: which bodies we read, what a client can take (RFC 9110, sections 8.3 and 12.5)."""

from collections.abc import Mapping


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
