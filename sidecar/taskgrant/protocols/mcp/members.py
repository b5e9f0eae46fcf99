"""The members of a method's params against the table: none unlisted, none of another type, none missing."""

from taskgrant.model.json import Json, JsonObject
from taskgrant.protocols import strictjson
from taskgrant.protocols.mcp.methods import PSEUDO_TOOL_PREFIX, TYPES, Method

MAX_NAME_LENGTH = 256
MAX_URI_LENGTH = 8192

_TOOL_MEMBERS = ("name", "arguments")
_NAMES = ("name", "uri", "taskId")


class MembersFault(ValueError):
    """A member of params is unknown, missing, of another type, or a name that cannot be one."""


def check(params: JsonObject, method: Method, *, tool: bool) -> None:
    """Raises MembersFault. ``tool`` for ``tools/call``, whose name and arguments are the call's own."""
    for member, value in params.items():
        if (
            member != "_meta"
            and member not in method.arguments
            and member not in method.params
            and not (tool and member in _TOOL_MEMBERS)
        ):
            raise MembersFault(f"unknown member {member[:64]!r} in params")
        if type(value) not in TYPES[member]:
            raise MembersFault(f"the member {member!r} in params has another type")
        if member in _NAMES:
            _check_name(member, str(value), tool)
    for member in method.required:
        if member not in params:
            raise MembersFault(f"the member {member!r} is missing in params")


def pick(params: JsonObject, members: tuple[str, ...]) -> dict[str, Json]:
    return {member: params[member] for member in members if member in params}


def _check_name(member: str, value: str, tool: bool) -> None:
    longest = MAX_NAME_LENGTH if member == "name" else MAX_URI_LENGTH
    if not 0 < len(value) <= longest or not value.isprintable():
        raise MembersFault(f"the member {member!r} must be 1 to {longest} printable characters")
    if tool and strictjson.fold(value).startswith(PSEUDO_TOOL_PREFIX):
        raise MembersFault(f"tool names that begin with {PSEUDO_TOOL_PREFIX!r} are reserved")
