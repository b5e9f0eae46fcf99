from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrant.protocols.mcp.lists import filter_list, tool_names

SCHEMA = {"type": "object"}


def page(*tools: object, **members: object) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "result": {"tools": list(tools), **members}}


def tool(name: object) -> dict[str, Any]:
    return {"name": name, "inputSchema": SCHEMA, "title": "t"}


def test_only_visible_tools_remain_whole_and_in_order():
    message = page(tool("b"), tool("secret"), tool("a"), nextCursor="c", _meta={"x": 1})
    assert filter_list(message, frozenset("ab"), 5, modern=False) == page(
        tool("b"), tool("a"), nextCursor="c", _meta={"x": 1}
    )
    assert tool_names(message) == ("b", "secret", "a")


def test_names_are_compared_exactly():
    message = page(tool("Send"), tool("send "), tool("\u0455end"), tool("send"))
    assert tool_names(filter_list(message, frozenset({"send"}), 5, modern=False)) == ("send",)


def test_what_is_no_tool_is_dropped():
    message = page(1, None, [], {}, tool(7), tool(None), tool("a"), {"name": "a", "description": "another a"})
    assert filter_list(message, frozenset("a"), 5, modern=False) == page(tool("a"))


@pytest.mark.parametrize(
    ("members", "modern", "ttl", "scope"),
    [
        ({"ttlMs": 60_000, "cacheScope": "public"}, True, 500, "private"),
        ({"ttlMs": 100}, True, 100, "private"),
        ({}, True, 0, "private"),
        ({"ttlMs": "1"}, True, 0, "private"),
        ({"ttlMs": -1}, True, 0, "private"),
        ({"ttlMs": True}, True, 0, "private"),
        ({"ttlMs": 60_000, "cacheScope": "public"}, False, 500, "private"),
        ({}, False, None, None),
    ],
)
def test_no_cache_outlives_the_grant(members, modern, ttl, scope):
    result = filter_list(page(**members), frozenset(), 500, modern)["result"]
    assert (result.get("ttlMs"), result.get("cacheScope")) == (ttl, scope)  # type: ignore[union-attr]


def test_errors_pass_and_other_shapes_are_empty():
    error: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "no"}}
    assert filter_list(error, frozenset(), 5, modern=True) == error
    assert tool_names(error) == ()
    odd: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "result": {"tools": {"a": tool("a")}}}
    assert filter_list(odd, frozenset("a"), 5, modern=False) == page()


@given(
    st.lists(st.text(max_size=2).map(tool) | st.none() | st.dictionaries(st.text(max_size=2), st.integers())),
    st.frozensets(st.text(max_size=2)),
)
def test_nothing_invisible_is_ever_shown(tools, visible):
    assert set(tool_names(filter_list(page(*tools), visible, 5, modern=True))) <= visible
