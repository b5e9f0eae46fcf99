"""The audit commands, for the CLI."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from taskgrant.audit.chain import Verdict
from taskgrant.audit.chain import verify as verify_lines
from taskgrant.errors import TaskgrantError

_POLL_SECONDS = 0.2


def tail(path: Path, follow: bool) -> Iterator[dict[str, Any]]:
    """The records in the file, oldest first; with ``follow``, those to come as well, until interrupted."""
    try:
        file = path.open("rb")
    except OSError as fault:
        raise TaskgrantError(f"{path}: cannot be read: {fault.strerror}") from fault
    with file:
        part = b""
        while True:
            part += file.readline()
            if part.endswith(b"\n"):
                yield json.loads(part)
                part = b""
            elif not follow:
                return
            else:
                time.sleep(_POLL_SECONDS)


def verify(path: Path) -> Verdict:
    """Checks the chain of a trail from its first line."""
    try:
        with path.open("rb") as file:
            return verify_lines(file)
    except OSError as fault:
        raise TaskgrantError(f"{path}: cannot be read: {fault.strerror}") from fault
