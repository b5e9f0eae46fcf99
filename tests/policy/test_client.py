"""What opa-python-client and the wire do is an answer, a fault or an absence; nothing else gets out."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from taskgrant.policy.client import OpaClient, OpaFault, OpaUnavailable

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def _opa(socket: Path, handler: Handler) -> AsyncIterator[OpaClient]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.UnixSite(runner, str(socket)).start()
    try:
        async with OpaClient(socket, 5.0) as client:
            yield client
    finally:
        await runner.cleanup()


def _answers(status: int, text: str, content_type: str = "application/json") -> Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=text, content_type=content_type)

    return handler


async def test_every_question_is_strict_and_asked_once(tmp_path: Path) -> None:
    seen: list[Any] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append((request.method, str(request.rel_url), await request.json()))
        return web.json_response({"result": {"a": 1}, "decision_id": "d"})

    async with _opa(tmp_path / "s", handler) as client:
        reply = await client.ask("taskgrant/authz", "decision", {"x": "é"})
    assert (reply.result, reply.decision_id) == ({"a": 1}, "d")
    assert seen == [
        ("POST", "/v1/data/taskgrant/authz/decision?strict-builtin-errors=true", {"input": {"x": "é"}})
    ]


@pytest.mark.parametrize("status", [301, 400, 401, 404, 500, 502, 503])
async def test_an_error_keeps_what_opa_says_and_is_not_tried_again(tmp_path: Path, status: int) -> None:
    asked = 0

    async def handler(_: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        text = json.dumps({"code": "c", "message": "m", "errors": [{"message": "why"}]})
        return web.Response(status=status, text=text, content_type="application/json")

    async with _opa(tmp_path / "s", handler) as client:
        with pytest.raises(OpaFault, match=f"^OPA answered {status}: why$"):
            await client.ask("p", "r", {})
    assert asked == 1


async def test_operands_of_a_builtin_are_not_repeated(tmp_path: Path) -> None:
    fault = {
        "code": "eval_builtin_error",
        "message": "net.cidr_contains: invalid CIDR address: swordfish",
        "location": {"file": "1/site.rego", "row": 9, "col": 2},
    }
    text = json.dumps({"code": "internal_error", "message": "m", "errors": [fault]})
    async with _opa(tmp_path / "s", _answers(500, text)) as client:
        with pytest.raises(
            OpaFault, match=r"^OPA answered 500: net\.cidr_contains failed at 1/site\.rego:9$"
        ):
            await client.ask("p", "r", {})


@pytest.mark.parametrize(
    "status, text, said",
    [
        (200, "{}", "data.p.r is undefined"),
        (200, "[]", "data.p.r is undefined"),
        (200, "null", "data.p.r is undefined"),
        (200, "{", "cannot be read"),
        (500, "no JSON", "OPA answered 500: no JSON"),
        (500, "", "OPA answered 500: no message"),
        (500, '{"errors": 7}', "OPA answered 500"),
        (500, "[]", "OPA answered 500"),
    ],
)
async def test_what_is_no_answer(tmp_path: Path, status: int, text: str, said: str) -> None:
    async with _opa(tmp_path / "s", _answers(status, text)) as client:
        with pytest.raises(OpaFault, match=said):
            await client.ask("p", "r", {})


@pytest.mark.parametrize("document", [{"x": object()}, {"x": float("inf")}, {1: {2: {3}}}])
async def test_what_is_no_question(tmp_path: Path, document: Any) -> None:
    async with _opa(tmp_path / "s", _answers(200, '{"result": 1}')) as client:
        with pytest.raises(OpaFault, match="cannot be read"):
            await client.ask("p", "r", document)


async def test_nobody_there(tmp_path: Path) -> None:
    async with OpaClient(tmp_path / "none", 1.0) as client:
        with pytest.raises(OpaUnavailable, match="cannot be reached"):
            await client.ask("p", "r", {})
    with pytest.raises(OpaUnavailable, match="closed"):
        await client.ask("p", "r", {})


async def test_a_connection_that_breaks_off(tmp_path: Path) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "100"})
        await response.prepare(request)
        await response.write(b'{"result"')
        assert request.transport is not None
        request.transport.abort()
        return response

    async with _opa(tmp_path / "s", handler) as client:
        with pytest.raises(OpaUnavailable):
            await client.ask("p", "r", {})
