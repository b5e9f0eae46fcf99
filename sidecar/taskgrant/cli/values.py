"""Option values: JSON given in place or as ``@file`` (JSON, or YAML by its suffix)."""

from pathlib import Path
from typing import Any

import click

from taskgrant.model.decoding import decode


class Document(click.ParamType[dict[str, Any]]):
    """A JSON object: ``'{"server": "mail", …}'`` or ``@grant.json`` or ``@grant.yaml``."""

    name = "JSON|@FILE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, dict):
            return value
        document = (
            self._file(value[1:], param, ctx) if value.startswith("@") else self._text(value, param, ctx)
        )
        if not isinstance(document, dict):
            self.fail("is no JSON object", param, ctx)
        return document

    def _file(self, name: str, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(name)
        if path.suffix in (".yaml", ".yml"):
            from taskgrant.app import yaml_source

            return yaml_source.read(path).data
        try:
            text = path.read_bytes()
        except OSError as error:
            self.fail(f"{name} cannot be read: {error.strerror}", param, ctx)
        return self._text(text, param, ctx)

    def _text(self, text: str | bytes, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return decode(text)
        except ValueError as error:
            self.fail(str(error), param, ctx)


DOCUMENT = Document()
