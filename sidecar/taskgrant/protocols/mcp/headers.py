"""The request metadata headers of MCP 2026-07-28: what they say must be what the body says.

Values that are no plain ASCII travel as ``=?base64?<base64 of UTF-8>?=``; ``Mcp-Param-<name>`` mirrors an argument.
"""

import base64
import binascii
import re
from collections.abc import Iterator

from taskgrant.model.call import Head, Headers
from taskgrant.model.json import Json, JsonObject

VERSION = "mcp-protocol-version"
METHOD = "mcp-method"
NAME = "mcp-name"
SESSION = "mcp-session-id"
PARAM_PREFIX = "mcp-param-"

#: Two copies of one of these would be read differently by first-copy and last-copy readers.
SINGLE = frozenset({VERSION, METHOD, NAME, SESSION, "content-type", "content-encoding", "content-length"})

_PLAIN = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?|")
_PREFIX, _SUFFIX = "=?base64?", "?="
_MAX_SESSION_LENGTH = 256


class HeaderFault(ValueError):
    """A metadata header is missing, repeated, unreadable, or says something other than the body."""


def encode_value(value: str) -> str:
    """A header value for any text: as it is when that is safe and unambiguous, in base64 otherwise."""
    if _PLAIN.fullmatch(value) and not (value.startswith(_PREFIX) and value.endswith(_SUFFIX)):
        return value
    return _PREFIX + base64.b64encode(value.encode()).decode() + _SUFFIX


def decode_value(value: str) -> str:
    """The text that a header value stands for. Raises HeaderFault when its base64 or UTF-8 is broken."""
    if not (value.startswith(_PREFIX) and value.endswith(_SUFFIX)):
        return value
    payload = value[len(_PREFIX) : -len(_SUFFIX)]
    try:
        decoded = base64.b64decode(payload, validate=True)
        if base64.b64encode(decoded).decode() != payload:
            raise HeaderFault("a header holds base64 with stray bits")
        return decoded.decode("utf-8")
    except (binascii.Error, UnicodeError):
        raise HeaderFault("a header holds broken base64") from None


def read(head: Head) -> dict[str, str]:
    """The headers that we read, by name. Raises HeaderFault when one of them that must be single is not."""
    found: dict[str, str] = {}
    for name, value in head.headers:
        if name in found and (name in SINGLE or name.startswith(PARAM_PREFIX)):
            raise HeaderFault(f"the header {name} appears twice")
        found[name] = value
    return found


def session(found: dict[str, str]) -> str | None:
    """The client's session (visible ASCII, of bounded length). Raises HeaderFault."""
    value = found.get(SESSION)
    if value is not None and not (0 < len(value) <= _MAX_SESSION_LENGTH and _visible(value)):
        raise HeaderFault(f"the header {SESSION} is malformed")
    return value


def check(
    found: dict[str, str], *, method: str, name: str | None, need_method: bool, need_name: bool
) -> None:
    """Raises HeaderFault unless ``Mcp-Method`` and ``Mcp-Name`` are there where needed, and agree with the body."""
    sent_method = found.get(METHOD)
    if sent_method is None:
        if need_method:
            raise HeaderFault("the header Mcp-Method is required")
    elif sent_method != method:
        raise HeaderFault("the header Mcp-Method does not match the method in the body")
    sent_name = found.get(NAME)
    if sent_name is None:
        if need_name:
            raise HeaderFault("the header Mcp-Name is required for this method")
    elif decode_value(sent_name) != name:
        raise HeaderFault("the header Mcp-Name does not match the name in the body")


def params(found: dict[str, str], arguments: JsonObject, *, allowed: bool) -> Headers:
    """The ``Mcp-Param-*`` headers, encoded anew.

    The specification has intermediaries forward those that they do not know. But then a header that policy did not see
    would reach the tool, so each must repeat a scalar argument of the same name (ignoring case, ``-`` and ``_`` alike,
    at any depth of objects); everything else raises HeaderFault. ``allowed`` is false where the protocol has none.
    """
    mirrored: list[tuple[str, str]] = []
    for header, value in found.items():
        if not header.startswith(PARAM_PREFIX):
            continue
        wanted = header.removeprefix(PARAM_PREFIX)
        text = decode_value(value)
        if not allowed or not any(text == said for said in _scalars(arguments, _loose(wanted))):
            raise HeaderFault("a header Mcp-Param-* repeats no argument of that name")
        mirrored.append((header, encode_value(text)))
    return tuple(mirrored)


def _scalars(arguments: JsonObject, name: str) -> Iterator[str]:
    for key, value in arguments.items():
        if isinstance(value, dict):
            yield from _scalars(value, name)
        elif _loose(key) == name and (text := _text(value)) is not None:
            yield text


def _text(value: Json) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | str):
        return str(value)
    return None


def _loose(name: str) -> str:
    return name.lower().replace("_", "-")


def _visible(value: str) -> bool:
    return all("\x21" <= character <= "\x7e" for character in value)
