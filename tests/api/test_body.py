"""Bodies: bounded, strict, every fault at once; and problem documents for whatever goes wrong."""

from typing import Any

import pytest

from taskgrant.api.problems import STATUSES, status_of
from taskgrant.model.codes import Code
from tests.api.support import Served, served

JSON = {"Content-Type": "application/json"}


async def test_all_faults_are_told_at_once_by_pointer(api: Served) -> None:
    grants: list[Any] = [
        {"server": "mail", "tools": ["a"]},
        {"server": 7, "tools": [], "max_uses": 0, "more": 1},
    ]
    problem = await api.problem("POST", "/v1/tasks", {"grants": grants, "expires_in": -1, "a/b~c": 1})
    assert (problem["status"], problem["code"]) == (422, "invalid")
    assert sorted(fault["pointer"] for fault in problem["errors"]) == [
        "/a~1b~0c",
        "/expires_in",
        "/grants/1/max_uses",
        "/grants/1/more",
        "/grants/1/server",
        "/grants/1/tools",
        "/purpose",
    ]
    assert problem["detail"].endswith("(and 6 more)")
    assert not api.authority.by_task


@pytest.mark.parametrize(
    "raw, code",
    [
        (b"{", "malformed"),
        (b'{"purpose": "a", "purpose": "b"}', "malformed"),
        (b'{"purpose": "a", "expires_in": NaN}', "malformed"),
        (b'{"purpose": "a", "expires_in": 1e999}', "malformed"),
        (b'{"purpose": "\xff"}', "malformed"),
        (b'{"purpose": "\\ud800"}', "malformed"),
        (b'{"params": ' + b'{"a":' * 70 + b"1" + b"}" * 70 + b', "purpose": "a"}', "malformed"),
        (b"[" * 100_000, "malformed"),
        (b"[]", "invalid"),
        (b"null", "invalid"),
        (b'{"purpose": "a", "expires_in": "60"}', "invalid"),
        (b'{"purpose": "a", "uid": true}', "invalid"),
        (b'{"purpose": "a", "uid": 1.5}', "invalid"),
    ],
)
async def test_what_two_readers_could_understand_differently_is_refused(
    api: Served, raw: bytes, code: str
) -> None:
    assert (await api.problem("POST", "/v1/tasks", data=raw, headers=dict(JSON)))["code"] == code
    assert not api.authority.by_task


async def test_only_plain_json_is_taken(api: Served) -> None:
    for headers in ({"Content-Type": "text/plain"}, {**JSON, "Content-Encoding": "br"}):
        problem = await api.problem("POST", "/v1/tasks", data=b'{"purpose": "a"}', headers=headers)
        assert (problem["code"], problem["status"]) == ("unsupported", 415)


async def test_bodies_are_bounded_however_they_are_framed(tmp_path: Any) -> None:
    async def chunks() -> Any:
        for _ in range(3):
            yield b" " * 1000

    async with served(tmp_path, body_limit=2048) as api:
        assert (await api.problem("POST", "/v1/tasks", data=b" " * 3000))["code"] == "too_large"
        problem = await api.problem("POST", "/v1/tasks", data=chunks(), headers=dict(JSON))
        assert (problem["code"], problem["status"]) == ("too_large", 413)


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\u00e9"])
async def test_an_idempotency_key_is_short_and_plain(api: Served, key: str) -> None:
    problem = await api.problem("POST", "/v1/tasks", {"purpose": "a"}, headers={"Idempotency-Key": key})
    assert problem["code"] == "malformed"
    assert not api.authority.by_task


async def test_a_method_that_is_not_there_names_those_that_are(api: Served) -> None:
    answer = await api.ask("DELETE", "/v1/tasks")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET,POST".replace(",", ", "))
    assert answer.json["code"] == "unsupported"


async def test_what_nobody_foresaw_tells_the_peer_nothing(
    api: Served, caplog: pytest.LogCaptureFixture
) -> None:
    problem = await api.problem("POST", "/v1/introspect", {"token": "broken", "audience": "mail"})
    assert (problem["code"], problem["status"]) == ("authority_unavailable", 500)
    assert "secret" not in str(problem)
    assert "the control API failed" in caplog.text


def test_every_code_that_refuses_has_a_status() -> None:
    assert set(STATUSES) == set(Code) - {Code.GRANTED}
    assert all(400 <= status < 600 for status in STATUSES.values())
    assert status_of("of a newer part") == status_of(Code.GRANTED) == 500
