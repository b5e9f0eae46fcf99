"""The OpenAPI 3.1 description of the control API, made from the route table and the models that
validate requests."""

import re
from collections.abc import Sequence
from typing import Any

from pydantic.json_schema import models_json_schema

from taskgrant.api import shapes
from taskgrant.api.problems import CONTENT_TYPE
from taskgrant.api.routes import Route

_PARAMETERS: dict[str, dict[str, Any]] = {
    "after": {"description": "The `next` of the page before, or the cursor to resume after."},
    "limit": {"description": "Entries a page.", "schema": {"type": "integer", "minimum": 1, "maximum": 1000}},
    "subscriber": {"description": "The name under which this peer acknowledges; guards and sidecars only."},
}


def describe(routes: Sequence[Route], version: str) -> dict[str, Any]:
    """The whole description, as a JSON document."""
    models = {model for route in routes for model in (route.body, route.answer) if model} | {shapes.Problem}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, schemas = models_json_schema(
        [(model, "validation") for model in ordered], ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "taskgrant control API",
            "version": version,
            "description": "On a Unix socket. The peer's uid gives it its roles; no request can say otherwise.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "responses": {
                "Problem": {
                    "description": "Refused or failed (RFC 9457)",
                    "content": {CONTENT_TYPE: {"schema": _reference(shapes.Problem.__name__)}},
                }
            },
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "x-roles": sorted(role.value for role in route.roles),
        "responses": {
            str(route.status): _answer(route),
            "default": {"$ref": "#/components/responses/Problem"},
        },
    }
    if route.replays:
        repeated = {"description": "An earlier answer to the same Idempotency-Key, without secrets"}
        operation["responses"].setdefault("200", {**_answer(route), **repeated})
    parameters = [_path(name) for name in re.findall(r"{(\w+)}", route.path)]
    parameters += [_query(name) for name in route.query]
    if route.replays:
        parameters.append(_header("Idempotency-Key", "Repeats with the same key change nothing."))
    if route.media == "text/event-stream":
        parameters.append(_header("Last-Event-ID", "The cursor to resume after."))
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        schema = {"schema": _reference(route.body.__name__)}
        required = any(field.is_required() for field in route.body.model_fields.values())
        operation["requestBody"] = {"content": {"application/json": schema}, "required": required}
    return operation


def _answer(route: Route) -> dict[str, Any]:
    if route.status == 204:
        return {"description": "Done"}
    if route.answer is not None:
        schema: dict[str, Any] = _reference(route.answer.__name__)
    else:
        schema = {"type": "object"} if route.media.endswith("json") else {"type": "string"}
    return {"description": route.summary, "content": {route.media: {"schema": schema}}}


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _query(name: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": {"type": "string"}, **_PARAMETERS[name]}


def _header(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "schema": {"type": "string"}, "description": description}
