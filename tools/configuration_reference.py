"""Prints docs/configuration.md, made from the models that read the configuration: no setting can be missing from it.

.venv/bin/python -m tools.configuration_reference > docs/configuration.md
"""

import types
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, StringConstraints
from pydantic.fields import FieldInfo

from taskgrant.app.config import Config
from taskgrant.cli.processes import guard_command
from taskgrant.guard.config import GuardConfig

_HEAD = """\
# Configuration

One YAML file, `taskgrant run FILE`. It is checked whole before a socket is bound: every unknown, missing, ill-typed or
conflicting key is an error, and all are named at once, with file, line and key. `taskgrant config check FILE` does the
same and opens nothing.

```console
$ taskgrant config check taskgrant.yaml
taskgrant: taskgrant.yaml:1: servers: is missing
taskgrant: taskgrant.yaml:3: servrs: is not a setting; see docs/configuration.md
```

* Relative paths are relative to the file.
* Plain YAML: one document, each key once, no merge keys and no tags.
* A change takes a restart. So does a change of policy: its directories are read once, at the start.
* What works as it stands, with comments: [`examples/quickstart/taskgrant.yaml`](../examples/quickstart/taskgrant.yaml).

This page is generated from the models that read the file (`python -m tools.configuration_reference`).
"""

_GUARD = """\
## The guard

`taskgrant guard` has no file: it is told on the command line, and finds the control API by `--socket`. Settings without
an option have their default. See [the guard](guard.md).
"""

_TYPES: Mapping[Any, str] = {
    str: "text",
    int: "whole number",
    IPv4Address: "IPv4 address",
    IPv6Address: "IPv6 address",
    float: "number",
    bool: "true or false",
    Path: "path",
    types.NoneType: "nothing",
}


def page() -> str:
    """The whole page."""
    parts = [_HEAD, *_sections(Config, "", "The file")]
    options = {str(option.name): option.opts[0] for option in guard_command.params}
    rows = [("setting", "option", "type", "default", "meaning")]
    for name, field in GuardConfig.model_fields.items():
        option = f"`{options[name]}`" if name in options else ""
        rows.append((f"`{name}`", option, _type(field), _default(field), _meaning(field)))
    return "\n".join([*parts, _GUARD, _table(rows)])


def _sections(model: type[BaseModel], prefix: str, title: str) -> Iterator[str]:
    """A heading and a table for the model's own settings, then the sections in it."""
    rows = [("setting", "type", "default", "meaning")]
    inner: list[tuple[str, type[BaseModel]]] = []
    for name, field in model.model_fields.items():
        place, found = _inside(field, prefix + name)
        if found is not None:
            inner.append((place, found))
            if place == prefix + name:
                continue
        rows.append((f"`{prefix}{name}`", _type(field), _default(field), _meaning(field)))
    yield f"## {title}\n"
    if model.__doc__ and prefix:
        yield " ".join(model.__doc__.split()) + "\n"
    if len(rows) > 1:
        yield _table(rows)
    for place, found in inner:
        yield from _sections(found, f"{place}.", f"`{place}`")


def _inside(field: FieldInfo, place: str) -> tuple[str, type[BaseModel] | None]:
    """The model whose settings a field holds, and where they are: a section, one of a mapping, one of a list."""
    annotation = field.annotation
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is dict:
        place, annotation = f"{place}.<name>", arguments[1]
    elif origin is tuple:
        place, annotation = f"{place}[]", arguments[0]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return place, annotation
    return place, None


def _type(field: FieldInfo) -> str:
    bounds = [text for one in field.metadata if (text := _bound(one))]
    return ", ".join([_named(field.annotation), *bounds])


def _named(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_named(one) for one in arguments if one is not types.NoneType)
    if origin is tuple:
        return f"list of {_named(arguments[0])}"
    if origin is dict:
        return f"mapping of {_named(arguments[0])} to {_named(arguments[1])}"
    if origin is not None:  # Annotated
        return _named(arguments[0])
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " or ".join(f"`{member.value}`" for member in annotation)
    if annotation in _TYPES:
        return _TYPES[annotation]
    return "section"


def _bound(one: Any) -> str:
    match one:
        case annotated_types.Ge(ge=limit):
            return f"≥ {limit}"
        case annotated_types.Gt(gt=limit):
            return f"> {limit}"
        case annotated_types.Le(le=limit):
            return f"≤ {limit}"
        case annotated_types.Lt(lt=limit):
            return f"< {limit}"
        case annotated_types.MinLen(min_length=limit):
            return f"at least {limit}"
        case StringConstraints(pattern=pattern) if pattern is not None:
            return f"`{str(pattern).replace('|', chr(92) + '|')}`"
    return ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    if field.default_factory is not None or field.default is None:
        return "see there"
    value = field.default
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    if (field.description or "").startswith("File mode"):
        return f"`{value:#o}`"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"`{value}`"


def _meaning(field: FieldInfo) -> str:
    text = " ".join((field.description or "").split()).replace("|", "\\|").rstrip(".")
    if not text.partition(" ")[0].endswith(":"):  # a value of the setting stays as it is written
        text = text[:1].upper() + text[1:]
    return text.replace("<", "&lt;")  # names in angle brackets are no HTML


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    head, *body = rows
    lines = [head, tuple("---" for _ in head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201
