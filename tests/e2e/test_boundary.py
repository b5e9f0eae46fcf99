"""The permission boundary: what policy says of an agent binds every grant, down to the arguments of each call."""

from typing import Any

import pytest
from mcp import Client

from taskgrant.client import TaskgrantClient
from taskgrant.errors import Refused
from tests.e2e.office import MAIL, SERVER, Office

BOUNDARY = {
    "server": SERVER,
    "tools": ["send_mail"],
    "arguments": {
        "properties": {
            "to": {"type": "string", "pattern": "[a-z]+@example\\.org"},
            "subject": {"type": "string"},
        }
    },
}
ANYBODY = {
    **MAIL,
    "arguments": {
        "properties": {"to": {"type": "string"}, "subject": {"type": "string"}},
        "required": ["to", "subject"],
    },
}


@pytest.fixture
def bounded(place) -> Office:
    place.boundary.append(BOUNDARY)
    return Office.start(place, tools=())


async def sent(agent: Client, arguments: dict[str, Any]) -> str:
    result = await agent.call_tool("send_mail", arguments)
    return str((result.meta or {}).get("taskgrant/code", "allowed"))


async def test_arguments_of_the_boundary_bind_a_wider_grant(bounded: Office) -> None:
    async with TaskgrantClient(bounded.place.control) as orchestrator:
        await orchestrator.start({"purpose": "mail anybody", "grants": [ANYBODY]})
        async with Client(bounded.endpoint) as agent:
            inside = await sent(agent, {"to": "bob@example.org", "subject": "s"})
            outside = await sent(agent, {"to": "mallory@evil.example", "subject": "s"})
    assert (inside, outside) == ("allowed", "arguments_refused")
    assert [entry["to"] for entry in bounded.journal] == ["bob@example.org"]


async def test_tools_outside_are_not_granted(bounded: Office) -> None:
    reading = {"server": SERVER, "tools": ["read_ticket"]}
    async with TaskgrantClient(bounded.place.control) as orchestrator:
        with pytest.raises(Refused) as refused:
            await orchestrator.start({"purpose": "read", "grants": [reading]})
    assert refused.value.code == "denied_by_policy"
    assert "read_ticket" in refused.value.reason
