"""The command line as people use it: a process of its own, its text or its document, its exit code."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


def taskgrant(*arguments: object, socket: Path | None = None, opa: Path | None = None) -> Said:
    """``taskgrant <arguments>``, with ``--output json`` where the arguments say so."""
    given = [] if socket is None else ["--socket", str(socket)]
    variables = {**os.environ, "COLUMNS": "100"} | ({} if opa is None else {"TASKGRANT_OPA": str(opa)})
    done = subprocess.run(
        [sys.executable, "-m", "taskgrant.cli.main", *given, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env=variables,
        check=False,
    )
    return Said(done.returncode, done.stdout, done.stderr)
