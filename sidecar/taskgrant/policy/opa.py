"""The ``opa`` program: finding it, what its builtins may be, and running its commands."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from taskgrant.errors import ConfigurationError

OLDEST = (1, 20)

#: Builtins that no policy gets: they reach out, look around, or make the same question have two answers.
FORBIDDEN = frozenset(
    {
        "http.send",
        "net.lookup_ip_addr",
        "opa.runtime",
        "providers.aws.sign_req",
        "rand.intn",
        "rego.parse_module",
        "time.now_ns",
        "trace",
        "uuid.rfc4122",
    }
)

_SECONDS = 60


def find_opa(binary: str | None = None) -> str:
    """The program to start: ``binary``, ``$TASKGRANT_OPA``, an ``opa`` on PATH that is new enough, what
    ``tools/install-opa`` built.

    Raises ``ConfigurationError`` with one sentence when there is none.
    """
    for source, name in (("policy.opa.binary", binary), ("TASKGRANT_OPA", os.environ.get("TASKGRANT_OPA"))):
        if name:
            found = shutil.which(name)
            if found is None:
                raise ConfigurationError([f"{source} is {name}, which is no program that can be run"])
            return found
    on_path = shutil.which("opa")
    if on_path is not None and _version(on_path) >= OLDEST:
        return on_path
    built = sorted(_cache().glob("opa-*/opa"), key=lambda path: _version_in(path.parent.name), reverse=True)
    for path in built:
        if os.access(path, os.X_OK):
            return str(path)
    oldest = ".".join(map(str, OLDEST))
    raise ConfigurationError(
        [
            f"OPA is needed and not here: put an opa, {oldest} or newer, on PATH, or name one in policy.opa.binary"
        ]
    )


def _cache() -> Path:
    chosen = os.environ.get("TASKGRANT_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "taskgrant"


def _version_in(text: str) -> tuple[int, ...]:
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", text)
    return tuple(map(int, found.groups())) if found else ()


def _version(opa: str) -> tuple[int, ...]:
    try:
        answer = run(opa, ["version"])
    except ConfigurationError:
        return (0,)
    return _version_in(answer.stdout) or (0,)


def run(
    opa: str, arguments: Sequence[str], stdin: str = "", folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """One command of OPA, to its end. Raises ``ConfigurationError`` when it cannot be run at all."""
    try:
        return subprocess.run(
            [opa, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
            cwd=folder,
            env={"HOME": "/nonexistent"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigurationError([f"{opa} cannot be run: {error}"]) from error


@cache
def capabilities(opa: str) -> str:
    """This OPA's capabilities without the forbidden builtins, and without any network, as JSON."""
    answer = run(opa, ["capabilities", "--current"])
    try:
        document = json.loads(answer.stdout)
        builtins = document["builtins"]
    except (ValueError, KeyError) as error:
        raise ConfigurationError([f"{opa} does not say what it can do: is it an OPA?"]) from error
    document["builtins"] = [one for one in builtins if one["name"] not in FORBIDDEN]
    document["allow_net"] = []
    return json.dumps(document)


def faults(
    answer: subprocess.CompletedProcess[str], original: Callable[[str], str] = lambda text: text
) -> list[str]:
    """The errors of an ``opa … --format json`` command, each as ``file:line: message``."""
    if answer.returncode == 0:
        return []
    try:
        errors = json.loads(answer.stdout or answer.stderr)["errors"]
        return [_fault(one, original) for one in errors]
    except (ValueError, KeyError, TypeError):
        said = answer.stderr or answer.stdout
        return [original(line) for line in said.splitlines() if line.strip()]


def _fault(error: dict[str, Any], original: Callable[[str], str]) -> str:
    where = error.get("location") or {}
    place = f"{where['file']}:{where['row']}: " if where.get("file") else ""
    return original(f"{place}{error['message']}")
