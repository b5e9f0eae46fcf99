"""URL paths and queries that every server understands the same way (RFC 3986): decoded strictly, encoded anew.

Refused: empty and dot segments, ``;`` parameters, backslashes, control bytes, what is not UTF-8, and any escape that
decodes to ``/``, ``\\``, ``;``, ``%`` or a dot segment: some servers decode twice, or split after they have decoded.
"""

import re
from urllib.parse import quote, unquote_to_bytes

# RFC 3986, appendix A: pchar without ";"; in queries also "/" and "?", and "&" only between parameters.
_SEGMENT = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,=:@]|%[0-9A-Fa-f]{2})+")
_QUERY_PART = re.compile(r"(?:[A-Za-z0-9\-._~!$'()*+,:@/?=]|%[0-9A-Fa-f]{2})*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_AMBIGUOUS = re.compile(r"[/\\;%]")
_SEGMENT_SAFE = "-._~!$&'()*+,=:@"


class PathFault(ValueError):
    """A path or query that servers may understand differently."""


def split_path(path: str) -> tuple[str, ...]:
    """The decoded segments of an absolute path; ``/`` has none. Raises PathFault."""
    if not path.startswith("/"):
        raise PathFault("the path must begin with /")
    if path == "/":
        return ()
    return tuple(_segment(raw) for raw in path[1:].split("/"))


def join_path(segments: tuple[str, ...]) -> str:
    """The one encoding of decoded segments. Raises PathFault for a segment that would not survive it."""
    for segment in segments:
        _check_segment(segment)
    return "/" + "/".join(quote(segment, safe=_SEGMENT_SAFE) for segment in segments)


def split_query(query: str) -> dict[str, str]:
    """The parameters of a query, ``+`` read as a space. Raises PathFault, also for a repeated name or a lone one."""
    found: dict[str, str] = {}
    if not query:
        return found
    for part in query.split("&"):
        raw_name, equals, raw_value = part.partition("=")
        if not equals:
            raise PathFault("each query parameter is written name=value")
        name, value = _query_part(raw_name), _query_part(raw_value)
        if not name:
            raise PathFault("a query parameter has no name")
        if name in found:
            raise PathFault(f"the query parameter {name[:64]!r} appears twice")
        found[name] = value
    return found


def split_query_pairs(query: str) -> tuple[tuple[str, str | None], ...]:
    """The same where the server is free to understand a query its own way: in order, repeated or lone as they are."""
    if not query:
        return ()
    pairs = []
    for part in query.split("&"):
        name, equals, value = part.partition("=")
        pairs.append((_query_part(name), _query_part(value) if equals else None))
    return tuple(pairs)


def join_query_pairs(pairs: tuple[tuple[str, str | None], ...]) -> str:
    return "&".join(
        quote(name, safe="") if value is None else f"{quote(name, safe='')}={quote(value, safe='')}"
        for name, value in pairs
    )


def join_query(parameters: list[tuple[str, str]]) -> str:
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in parameters)


def _segment(raw: str) -> str:
    if not _SEGMENT.fullmatch(raw):
        raise PathFault("the path has an empty segment or a character that must be escaped")
    segment = raw if "%" not in raw else _utf8(raw)
    _check_segment(segment)
    return segment


def _check_segment(segment: str) -> None:
    if segment in ("", ".", ".."):
        raise PathFault("the path has an empty or a dot segment")
    if _CONTROL.search(segment) or _AMBIGUOUS.search(segment):
        raise PathFault("a path segment decodes to a character that servers treat differently")


def _query_part(raw: str) -> str:
    if not _QUERY_PART.fullmatch(raw):
        raise PathFault("the query has a character that must be escaped")
    text = _utf8(raw.replace("+", " ")) if "%" in raw else raw.replace("+", " ")
    if _CONTROL.search(text):
        raise PathFault("a query parameter holds a control character")
    return text


def _utf8(raw: str) -> str:
    try:
        return unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        raise PathFault("an escape is not UTF-8") from None
