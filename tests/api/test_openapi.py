"""The description says what is served, and nothing else."""

from pathlib import Path
from typing import Any

from openapi_spec_validator import OpenAPIV31SpecValidator

from taskgrant.api.problems import STATUSES
from taskgrant.api.routes import ROUTES
from tests.api.support import Served

DOCS = Path(__file__).resolve().parents[2] / "docs" / "api.md"


async def described(api: Served) -> Any:
    return (await api.ask("GET", "/openapi.json")).json


async def test_it_is_openapi_3_1(api: Served) -> None:
    document = await described(api)
    assert document["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(document).validate()


async def test_every_route_is_described_and_nothing_else(api: Served) -> None:
    document = await described(api)
    told = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert told == {(route.method, route.path) for route in ROUTES}
    assert len({route.name for route in ROUTES}) == len(ROUTES)


async def test_what_is_told_is_what_is_checked(api: Served) -> None:
    document = await described(api)
    start = document["paths"]["/v1/tasks"]["post"]
    assert start["x-roles"] == ["orchestrator"]
    assert set(start["responses"]) == {"200", "201", "default"}
    assert start["requestBody"]["required"]
    assert {one["name"] for one in start["parameters"]} == {"Idempotency-Key"}
    assert document["components"]["schemas"]["TaskRequest"]["additionalProperties"] is False
    assert not document["paths"]["/v1/tasks/{id}/complete"]["post"]["requestBody"]["required"]


def test_the_page_for_people_names_every_route_and_status() -> None:
    page = DOCS.read_text()
    for route in ROUTES:
        last = "/" + route.path.rsplit("/", 1)[-1]
        assert route.path in page or f"`{last}`" in page, route.path
    for code in STATUSES:
        assert f"`{code}`" in page, code
