"""``tools/list`` on its way to the client: only what the task may see, and no cache outlives what allowed it."""

from collections.abc import Mapping

from taskgrant.model.json import Json, JsonObject


def tool_names(message: JsonObject) -> tuple[str, ...]:
    """The names in a ``tools/list`` response, in its order, each once. Empty for an error and for anything else."""
    return tuple(dict.fromkeys(name for name, _ in _tools(message)))


def filter_list(message: JsonObject, visible: frozenset[str], ttl_ms: int, modern: bool) -> JsonObject:
    """The response with the visible tools only. An error passes as it is.

    Names are compared exactly, so a look-alike of a visible tool is not visible; entries that are no tool, and second
    definitions of one name, are dropped. Results of another shape become an empty list. ``ttl_ms`` is the most that the
    client may keep the answer; from 2026-07-28 on (``modern``) it is always stated, and always ``private``.
    """
    outcome = message.get("result")
    if not isinstance(outcome, Mapping):
        return message
    kept: dict[str, JsonObject] = {}
    for name, tool in _tools(message):
        if name in visible and name not in kept:
            kept[name] = tool
    filtered: dict[str, Json] = {**outcome, "tools": list(kept.values())}
    if modern or "cacheScope" in filtered:
        filtered["cacheScope"] = "private"
    if modern or "ttlMs" in filtered:
        filtered["ttlMs"] = _shorter(filtered.get("ttlMs"), ttl_ms)
    return {**message, "result": filtered}


def _tools(message: JsonObject) -> list[tuple[str, JsonObject]]:
    outcome = message.get("result")
    tools = outcome.get("tools") if isinstance(outcome, Mapping) else None
    if not isinstance(tools, list | tuple):
        return []
    return [
        (name, tool)
        for tool in tools
        if isinstance(tool, Mapping) and isinstance(name := tool.get("name"), str)
    ]


def _shorter(stated: Json, limit: int) -> int:
    if type(stated) is int and stated >= 0:
        return max(0, min(stated, limit))
    return 0
