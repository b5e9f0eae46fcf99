import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrant.bridge import outgoing
from taskgrant.bridge.outgoing import BadLine
from taskgrant.model.call import Call, Head
from taskgrant.model.catalogue import Server, ServerProtocol
from taskgrant.protocols import jsonrpc, lines
from taskgrant.protocols.mcp.codec import VERSION_META, McpCodec

MODERN, LEGACY = "2026-07-28", "2025-11-25"
SERVER = Server("desk", ServerProtocol.MCP, "http://h/mcp", versions=(LEGACY, MODERN))


def line(method: str, params: Any = None, rpc_id: Any = 1, **more: Any) -> bytes:
    message = {"jsonrpc": "2.0", "method": method, "params": params or {}, **more}
    return json.dumps(message if rpc_id is None else {**message, "id": rpc_id}).encode()


def parsed(out: outgoing.Outgoing) -> Any:
    """What the gateway makes of it."""
    return McpCodec().parse(SERVER, Head("POST", "/mcp", "", tuple(out.headers.items())), out.body)


@given(
    st.text(min_size=1, max_size=20).filter(
        lambda name: name.isprintable() and not name.lower().startswith("mcp:")
    )
)
def test_a_call_without_sessions_is_one_that_the_gateway_takes_whatever_the_tools_name(name: str) -> None:
    params = {"name": name, "arguments": {"a": 1}, "_meta": {VERSION_META: MODERN}}
    out = outgoing.read(line("tools/call", params), "")
    call = parsed(out)
    assert isinstance(call, Call), call
    assert (call.tool, call.version) == (name, MODERN)
    assert out.modern
    assert out.id == 1


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("initialize", {"protocolVersion": LEGACY}),
        ("tools/list", {}),
        ("tools/call", {"name": "a", "arguments": {}}),
        ("resources/read", {"uri": "a:b"}),
    ],
)
def test_calls_of_a_session_speak_its_revision(method: str, params: Any) -> None:
    out = outgoing.read(line(method, params), LEGACY)
    call = parsed(out)
    assert isinstance(call, Call), call
    assert (call.action, call.version) == (method, LEGACY)
    assert not out.modern


@pytest.mark.parametrize(
    ("method", "params"), [("server/discover", {}), ("resources/read", {"uri": "a:ü"}), ("tools/list", {})]
)
def test_other_requests_without_sessions(method: str, params: Any) -> None:
    call = parsed(outgoing.read(line(method, {**params, "_meta": {VERSION_META: MODERN}}), ""))
    assert isinstance(call, Call), call


def test_notifications_and_answers() -> None:
    notice = outgoing.read(line("notifications/initialized", rpc_id=None), LEGACY)
    assert isinstance(parsed(notice), Call)
    answer = outgoing.read(b'{"jsonrpc": "2.0", "id": "q", "result": {}}', LEGACY)
    assert isinstance(answer.message, jsonrpc.Response)
    assert isinstance(parsed(answer), Call)
    assert (notice.id, answer.id) == (None, None)


def test_a_line_goes_on_byte_by_byte() -> None:
    odd = b'{ "id" :1, "method":"tools/list","jsonrpc" : "2.0"  }'
    assert outgoing.read(odd, LEGACY).body == odd


@pytest.mark.parametrize(
    ("bad", "code", "rpc_id"),
    [
        (b"hello", jsonrpc.PARSE_ERROR, None),
        (b"\xff", jsonrpc.PARSE_ERROR, None),
        (b"[" * 100_000, jsonrpc.PARSE_ERROR, None),
        (b'{"jsonrpc": "2.0", "id": 3, "id": 3, "method": "ping"}', jsonrpc.PARSE_ERROR, 3),
        (
            b'{"jsonrpc": "2.0", "id": "x", "method": "ping", "params": {"a": 1, "A": 2}}',
            jsonrpc.PARSE_ERROR,
            "x",
        ),
        (b'{"jsonrpc": "2.0", "id": true, "method": "ping", "method": "ping"}', jsonrpc.PARSE_ERROR, None),
        (b'{"jsonrpc": "2.0", "id": 3, "method": "ping", "more": 1}', jsonrpc.INVALID_REQUEST, 3),
        (b"[" + line("ping") + b"]", jsonrpc.INVALID_REQUEST, None),
        (b"7", jsonrpc.INVALID_REQUEST, None),
    ],
)
def test_what_is_no_message_gets_an_error(bad: bytes, code: int, rpc_id: Any) -> None:
    with pytest.raises(BadLine) as caught:
        outgoing.read(bad, LEGACY)
    answer = caught.value.answer
    assert answer["error"]["code"] == code  # type: ignore[index,call-overload]
    assert answer.get("id") == rpc_id
    assert ("id" in answer) == (rpc_id is not None)


pieces = st.sampled_from(
    [b"{", b"}", b"[", b"]", b":", b",", b'"id"', b'"method"', b'"params"', b'"jsonrpc"', b'"2.0"', b'"_meta"',
     b"null", b"1", b'"ping"', b'"tools/call"', b'"name"', b"1e999", b"\xff", b'"\\ud800"', b"NaN", b"\x00"]
)  # fmt: skip


@given(st.lists(pieces | st.binary(max_size=3), max_size=30).map(b"".join))
def test_any_bytes_are_a_message_or_a_bad_line(sent: bytes) -> None:
    try:
        out = outgoing.read(sent, LEGACY)
    except BadLine as bad:
        answer = bad.answer
    else:
        assert out.body == sent
        assert all(value.isascii() and value.isprintable() for value in out.headers.values())
        return
    assert lines.encode(answer).count(b"\n") == 1


def test_no_header_is_made_of_what_is_no_header() -> None:
    params = {"_meta": {VERSION_META: "2026\r\nA: b"}}
    out = outgoing.read(line("tools/list", params), "")
    assert "mcp-protocol-version" not in out.headers
    modern = {"_meta": {VERSION_META: MODERN}}
    out = outgoing.read(line("tools/l\u00efst", modern), "")
    assert all(value.isascii() and value.isprintable() for value in out.headers.values())
