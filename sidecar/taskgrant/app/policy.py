"""The policy commands, for the CLI: thin, so that it needs to know no package but this one."""

from pathlib import Path
from typing import Any

from taskgrant.policy import tooling


def check(directories: list[Path]) -> list[str]:
    return tooling.check(directories)


def test(directories: list[Path]) -> int:
    return tooling.test(directories)


def try_(directories: list[Path], document: dict[str, Any]) -> dict[str, Any]:
    return tooling.try_(directories, document)
