"""Plain HTTP operations of the catalogue: real client, sidecar, guard and server; what passes, what does not, and how
each is told."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.e2e.tickets import COMMENT, LIST, SHOW, Tickets, tickets


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, opa_binary: Path) -> Iterator[Tickets]:
    with tickets(tmp_path_factory.mktemp("tickets"), opa_binary) as running:
        yield running


def _problem(answer: httpx2.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["detail"]
    return answer.status_code, problem["code"]


async def test_what_is_granted_arrives_and_is_answered(world: Tickets) -> None:
    before = len(world.requests)
    async with world.at_work(COMMENT, SHOW, LIST) as (http, task):
        answer = await http.post(
            f"{world.base}/tickets/7/comments?notify=no",
            json={"text": "thank you"},
            headers={
                "Authorization": "Bearer of-the-agent",
                "Cookie": "a=b",
                "X-Forwarded-For": "1.2.3.4",
            },
        )
        assert answer.status_code == 201
        assert "set-cookie" not in answer.headers
        seen = answer.json()
        assert seen == world.requests[before]
        assert (seen["method"], seen["path"]) == ("POST", "/tickets/7/comments?notify=no")
        assert seen["body"] == {"text": "thank you"}
        assert not {"authorization", "cookie", "x-forwarded-for"} & seen["headers"].keys()
        assert seen["headers"]["taskgrant-task"] == task.id
        shown = await http.get(f"{world.base}/tickets/gr%C3%BC%C3%9Fe")
        assert (shown.status_code, shown.json()["path"]) == (200, "/tickets/gr%C3%BC%C3%9Fe")
        listed = await http.get(f"{world.base}/tickets", params={"state": "open"})
        assert (listed.status_code, listed.json()["path"]) == (200, "/tickets?state=open")
        missing = await http.get(f"{world.base}/tickets/404")
        assert (missing.status_code, missing.json()["path"]) == (
            404,
            "/tickets/404",
        )  # so says the server


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", "/tickets/8/comments", {"text": "x"}, (403, "arguments_refused")),
        ("POST", "/tickets/7/comments", {"text": "x" * 21}, (403, "arguments_refused")),
        ("POST", "/tickets/7/comments", {"text": "x", "as": "root"}, (403, "arguments_refused")),
        ("POST", "/tickets/7/comments?notify=yes", {"text": "x"}, (403, "arguments_refused")),
        ("POST", "/tickets/7/comments", {}, (403, "arguments_refused")),
        ("DELETE", "/tickets/7", None, (403, "no_grant")),
        ("GET", "/tickets?state=closed", None, (403, "arguments_refused")),
        ("GET", "/users", None, (404, "unknown_operation")),
        ("PUT", "/tickets/7", {}, (404, "unknown_operation")),
        ("GET", "/tickets/7/comments", None, (404, "unknown_operation")),
        ("GET", "/tickets/", None, (400, "malformed")),
        ("GET", "/tickets?state=open&state=closed", None, (400, "malformed")),
        ("GET", "/tickets?admin=1", None, (400, "malformed")),
        ("POST", "/tickets/7/comments", {"text": "x", "Id": "8"}, (400, "malformed")),
        ("POST", "/tickets/7/comments", [1], (400, "malformed")),
    ],
)  # fmt: skip
async def test_what_is_not_granted_does_not(
    world: Tickets, method: str, path: str, body: Any, expected: tuple[int, str]
) -> None:
    before = len(world.requests)
    async with world.at_work(COMMENT, SHOW, LIST) as (http, _):
        answer = await http.request(method, world.base + path, json=body)
        assert _problem(answer) == expected
    assert len(world.requests) == before


@pytest.mark.parametrize(
    "path",
    [
        "/tickets/7%2Fcomments", "/tickets/..%2f..%2fadmin", "/tickets/%2e%2e", "/tickets/..", "/tickets/./7",
        "/tickets//7", "/tickets/7;admin=1", "/tickets/%37%00", "/tickets/7%252f8", "/tickets/7\\8", "/tickets/%ff",
        "/tickets/7%0d%0aHost:%20x", "//tickets/7", "/tickets/7%5c..", "/tickets/%zz", "/tickets/%u0037",
    ],
)  # fmt: skip
async def test_a_path_that_two_servers_could_read_differently_reaches_none(world: Tickets, path: str) -> None:
    before = len(world.requests)
    async with world.at_work(SHOW):
        status, body = await _raw(world, path)
        assert status in (400, 404)
        assert b'"code"' in body
    assert len(world.requests) == before


async def _raw(world: Tickets, path: str) -> tuple[int, bytes]:
    """A request with its path exactly so: clients normalise it."""
    host, _, port = world.place.addresses["gateway"].removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"GET /tickets{path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode("latin-1")
    )
    answer = await reader.read()
    writer.close()
    return int(answer.split(b" ", 2)[1]), answer


async def test_without_a_task_there_is_nothing(world: Tickets) -> None:
    async with httpx2.AsyncClient() as http:
        assert _problem(await http.get(f"{world.base}/tickets/7")) == (403, "no_task")
        assert _problem(await http.get(f"{world.place.addresses['gateway']}/elsewhere/x")) == (
            404,
            "unknown_server",
        )


async def test_a_challenge_of_the_server_is_a_refusal_of_ours(world: Tickets) -> None:
    """A 401 would start the client's own login."""
    async with world.at_work(SHOW) as (http, _):
        answer = await http.get(f"{world.base}/tickets/401")
        assert _problem(answer) == (502, "credential_refused")
        assert "www-authenticate" not in answer.headers


async def test_uses_are_counted(world: Tickets) -> None:
    async with world.at_work({**SHOW, "max_uses": 2}) as (http, _):
        got = [(await http.get(f"{world.base}/tickets/7")).status_code for _ in range(3)]
        assert got == [200, 200, 403]


async def test_a_body_that_is_not_plain_json_is_refused(world: Tickets) -> None:
    before = len(world.requests)
    url = f"{world.base}/tickets/7/comments"
    plain = {"Content-Type": "application/json"}
    async with world.at_work(COMMENT) as (http, _):
        for content, headers, expected in (
            (b"text=x", {"Content-Type": "application/x-www-form-urlencoded"}, (415, "unsupported")),
            (b'{"text": "x"}', {**plain, "Content-Encoding": "gzip"}, (415, "unsupported")),
            (b'{"text": "x", "text": "y"}', plain, (400, "malformed")),
            (b'{"text": "x"', plain, (400, "malformed")),
            (b"x" * (5 << 20), plain, (413, "too_large")),
        ):  # fmt: skip
            assert _problem(await http.post(url, content=content, headers=headers)) == expected
    assert len(world.requests) == before
