import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrant.bridge import incoming
from taskgrant.protocols.mcp.refusals import DENIED


def test_an_answer_passes_as_it_is() -> None:
    message = {"jsonrpc": "2.0", "id": 1, "result": {"a": "ü"}}
    assert incoming.whole(200, json.dumps(message).encode(), 1) == message


@pytest.mark.parametrize("stray", [{}, {"id": None}, {"id": 2}, {"id": "1"}, {"id": True}])
def test_an_error_about_a_request_that_the_sidecar_could_not_read_gets_its_id(stray: dict[str, Any]) -> None:
    message = {"jsonrpc": "2.0", "error": {"code": -32600, "message": "no"}, **stray}
    assert incoming.whole(400, json.dumps(message).encode(), 1) == {**message, "id": 1}


def test_a_problem_becomes_an_error_that_says_why() -> None:
    problem = {"code": "overloaded", "detail": "too many", "status": 503}
    answer: Any = incoming.whole(503, json.dumps(problem).encode(), "a")
    assert answer["id"] == "a"
    assert answer["error"] == {
        "code": DENIED,
        "message": "too many",
        "data": {"code": "overloaded", "can_ask": False},
    }


@given(st.binary(max_size=60), st.integers(200, 599), st.integers() | st.text(max_size=5))
def test_each_request_is_answered_whatever_comes(body: bytes, status: int, rpc_id: Any) -> None:
    answer = incoming.whole(status, body, rpc_id)
    assert incoming.answers(answer, rpc_id)
    assert ("result" in answer) != ("error" in answer) or incoming.read(body) is not None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}',
        b'{"code": 7, "detail": []}',
        b"NaN",
    ],
)
def test_what_is_no_answer_becomes_an_error(body: bytes) -> None:
    answer: Any = incoming.whole(502, body, 1)
    assert answer["error"]["message"] == "the sidecar answered 502 without a message"
    assert answer["error"]["data"]["code"] == "upstream_unreachable"
