"""Every operation over a real Unix socket, each answer held to the model that the description names."""

import asyncio
import base64
from typing import Any

import pytest

from taskgrant.api import shapes
from taskgrant.api.routes import ROUTES
from tests.api.support import GRANT, Answer, Served

SHAPES = {(route.method, route.path): route for route in ROUTES}


def held(answer: Answer, method: str, path: str, status: int | None = None) -> Any:
    """The answer's document, which has to be of the route's status, media type and shape."""
    route = SHAPES[method, path]
    assert answer.status == (route.status if status is None else status), answer.raw
    assert answer.headers["Content-Type"].split(";")[0] == route.media
    assert route.answer is not None
    route.answer.model_validate(answer.json)
    return answer.json


async def started(api: Served, **members: Any) -> Any:
    answer = await api.ask("POST", "/v1/tasks", {"purpose": "test", "grants": [GRANT], **members})
    return held(answer, "POST", "/v1/tasks")


async def test_a_task_is_started_with_all_that_was_asked(api: Served) -> None:
    members = {"type": "t", "params": {"a": [1]}, "on_behalf_of": "user:alice", "session": "s", "uid": 7}
    answer = await api.ask(
        "POST", "/v1/tasks", {"purpose": "p", "expires_in": 60, "grants": [GRANT], **members}
    )
    document = held(answer, "POST", "/v1/tasks")
    assert answer.headers["Location"] == f"/v1/tasks/{document['task']['id']}"
    assert answer.headers["Cache-Control"] == "no-store"
    assert document["handle"] == "handle-of-task-0000"
    assert {name: document["task"][name] for name in members} == members
    assert document["task"]["deadline"] == "2027-01-15T08:01:00.000000Z"
    assert document["grants"][0]["schemas"] == [GRANT["arguments"]]
    assert document["grants"][0]["remaining"] == 2


async def test_a_replay_shows_no_handle(api: Served) -> None:
    body = {"purpose": "test"}
    headers = {"Idempotency-Key": "once"}
    first = await api.ask("POST", "/v1/tasks", body, headers=dict(headers))
    again = await api.ask("POST", "/v1/tasks", body, headers=dict(headers))
    assert held(first, "POST", "/v1/tasks")["handle"]
    assert held(again, "POST", "/v1/tasks", 200)["handle"] is None
    assert again.json["task"] == first.json["task"]
    assert b"handle-of" not in again.raw
    assert len(api.authority.by_task) == 1


async def test_a_handle_is_in_no_other_answer(api: Served) -> None:
    task = await started(api)
    for path in ("/v1/tasks", "/v1/tasks/task-0000", "/v1/tasks/task-0000/report", "/v1/grants"):
        answer = await api.ask("GET", path)
        assert answer.status == 200
        assert task["handle"].encode() not in answer.raw


async def test_lists_are_paged(api: Served) -> None:
    for _ in range(5):
        await started(api)
    for path, name in (("/v1/tasks", "tasks"), ("/v1/grants", "grants")):
        seen: list[str] = []
        after = ""
        while True:
            page = held(await api.ask("GET", f"{path}?limit=2{after}"), "GET", path)
            assert len(page[name]) <= 2
            seen += [one["id"] for one in page[name]]
            if page["next"] is None:
                break
            assert page["next"] == seen[-1]
            after = f"&after={page['next']}"
        assert len(seen) == len(set(seen)) == 5


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "limit=", "limit=1&limit=2", "what=1"])
async def test_a_query_that_is_not_understood_is_refused(api: Served, query: str) -> None:
    assert (await api.problem("GET", f"/v1/tasks?{query}"))["code"] == "invalid"


async def test_show_and_report(api: Served) -> None:
    await started(api)
    shown = held(await api.ask("GET", "/v1/tasks/task-0000"), "GET", "/v1/tasks/{id}")
    assert [one["id"] for one in shown["grants"]] == ["grant-0000"]
    grant = held(await api.ask("GET", "/v1/grants/grant-0000"), "GET", "/v1/grants/{id}")
    assert grant == shown["grants"][0]
    report = held(await api.ask("GET", "/v1/tasks/task-0000/report"), "GET", "/v1/tasks/{id}/report")
    assert report["unused"] == ["grant-0000"]
    assert report["uses"] == 0


@pytest.mark.parametrize("how, state", [("complete", "completed"), ("cancel", "cancelled")])
async def test_ending_says_who_did_not_answer_and_what_had_begun(api: Served, how: str, state: str) -> None:
    await started(api)
    path = f"/v1/tasks/{{id}}/{how}"
    ended = held(await api.ask("POST", f"/v1/tasks/task-0000/{how}"), "POST", path)
    assert ended["tasks"] == ["task-0000"]
    assert ended["unacknowledged"] == ["guard-1"]
    assert ended["begun"] == ["call-1"]
    shown = await api.ask("GET", "/v1/tasks/task-0000")
    assert shown.json["task"]["state"] == state
    assert (await api.problem("POST", f"/v1/tasks/task-0000/{how}"))["code"] == "task_ended"


async def test_more_grants_and_a_new_handle(api: Served) -> None:
    await started(api)
    asked = {"grants": [{"server": "files", "tools": ["read", "list"]}]}
    answer = await api.ask("POST", "/v1/tasks/task-0000/grants", asked, headers={"Idempotency-Key": "k"})
    given = held(answer, "POST", "/v1/tasks/{id}/grants")
    assert given["grants"][0]["tools"] == ["read", "list"]
    rotated = await api.ask("POST", "/v1/tasks/task-0000/handle")
    assert held(rotated, "POST", "/v1/tasks/{id}/handle") == {"handle": "new-handle-of-task-0000"}


@pytest.mark.parametrize("verdict, state", [("reject", "rejected"), ("revoke", "revoked")])
async def test_grants_are_judged(api: Served, verdict: str, state: str) -> None:
    api.authority.pending = True
    await started(api)
    path = f"/v1/grants/{{id}}/{verdict}"
    answer = await api.ask("POST", f"/v1/grants/grant-0000/{verdict}", {"reason": "because"})
    assert held(answer, "POST", path)["grants"] == ["grant-0000"]
    assert api.authority.reasons == ["because"]
    assert (await api.ask("GET", "/v1/grants/grant-0000")).json["state"] == state


async def test_nobody_approves_what_they_asked_for(api: Served) -> None:
    api.authority.pending = True
    await started(api)
    assert (await api.problem("POST", "/v1/grants/grant-0000/approve"))["code"] == "forbidden"


async def test_freeze_and_unfreeze(api: Served) -> None:
    frozen = held(await api.ask("POST", "/v1/freeze", {"all": True}), "POST", "/v1/freeze")
    assert frozen["durable_at"] is None
    problem = await api.problem("POST", "/v1/tasks", {"purpose": "test"})
    assert (problem["code"], problem["status"]) == ("frozen", 409)
    held(await api.ask("POST", "/v1/unfreeze", {"all": True}), "POST", "/v1/unfreeze")
    await started(api)


@pytest.mark.parametrize(
    "body", [{}, {"all": False}, {"task": "a", "tool": "b"}, {"grant": "g"}, {"task": ""}]
)
async def test_a_freeze_names_exactly_one_thing(api: Served, body: Any) -> None:
    assert (await api.problem("POST", "/v1/freeze", body))["code"] == "invalid"


async def test_guards_and_sidecars_get_what_they_ask_for(api: Served) -> None:
    await started(api)
    csr = base64.b64encode(b"\x30\x00").decode()
    enrolled = await api.ask("POST", "/v1/guards/mail/enrol", {"csr": csr})
    assert held(enrolled, "POST", "/v1/guards/{server}/enrol")["server"] == "mail"
    wanted = {"task": "task-0000", "audience": "mail", "csr": csr}
    issued = held(await api.ask("POST", "/v1/credentials", wanted), "POST", "/v1/credentials")
    assert issued["token"] == "token-2"
    acknowledged = {"subscriber": "guard-1", "cursor": "memory:1"}
    assert (await api.ask("POST", "/v1/events/ack", acknowledged)).status == 204
    assert [(name, str(cursor)) for name, cursor in api.authority.acknowledged] == [("guard-1", "memory:1")]


@pytest.mark.parametrize("path", ["/v1/guards/mail/enrol", "/v1/credentials"])
async def test_a_csr_that_is_not_base64_is_named(api: Served, path: str) -> None:
    body = {"csr": "not base64!"} | ({"task": "t", "audience": "a"} if "cred" in path else {})
    problem = await api.problem("POST", path, body)
    assert problem["errors"] == [{"pointer": "/csr", "detail": "not base64"}]


async def test_a_cursor_that_is_none_is_named(api: Served) -> None:
    problem = await api.problem("POST", "/v1/events/ack", {"subscriber": "g", "cursor": "nothing"})
    assert problem["errors"][0]["pointer"] == "/cursor"


async def test_introspection_takes_json_and_forms(api: Served) -> None:
    asked = {"token": "t", "audience": "mail"}
    assert (await api.ask("POST", "/v1/introspect", asked)).json == {"active": True}
    form = {"token": "t", "audience": "files", "token_type_hint": "access_token"}
    assert (await api.ask("POST", "/v1/introspect", data=form)).json == {"active": False}
    twice = [("token", "t"), ("token", "u"), ("audience", "mail")]
    assert (await api.problem("POST", "/v1/introspect", data=twice))["code"] == "malformed"


async def test_public_material(api: Served) -> None:
    assert (await api.ask("GET", "/v1/jwks")).json == {"keys": []}
    assert (await api.ask("GET", "/v1/bundle")).raw.startswith(b"-----BEGIN CERTIFICATE")
    assert (await api.ask("GET", "/v1/crl")).raw.startswith(b"-----BEGIN X509 CRL")


async def test_a_peer_that_leaves_cancels_nothing_that_it_began(api: Served) -> None:
    await started(api)
    api.authority.hold.clear()
    api.authority.begun.clear()
    asking = asyncio.create_task(api.ask("POST", "/v1/tasks/task-0000/complete"))
    await api.authority.begun.wait()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    api.authority.hold.set()
    await api.server.stop()  # waits for changes in progress
    assert api.authority.ended == ["task-0000"]


async def test_what_is_not_there_is_not_found(api: Served) -> None:
    for path in ("/v1/tasks/none", "/v1/grants/none", "/v1/nothing", "/v1/tasks/none/report"):
        assert (await api.problem("GET", path))["status"] == 404
    problem = await api.problem("POST", "/v1/tasks/none/delegate")
    assert shapes.Problem.model_validate(problem).code == "not_found"
