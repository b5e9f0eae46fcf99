"""What authors of policy run: ``taskgrant policy check | test | try``, on directories of their Rego and data."""

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from taskgrant.errors import ConfigurationError
from taskgrant.policy import opa
from taskgrant.policy.library import library
from taskgrant.policy.process import check_snapshot
from taskgrant.policy.snapshot import take


def check(directories: Sequence[Path]) -> list[str]:
    """Faults as ``file:line: message``: what would not load, types that do not fit the input's schema, and bad style.

    Raises ``ConfigurationError`` when there is no OPA.
    """
    program = opa.find_opa()
    with tempfile.TemporaryDirectory(prefix="taskgrant-check-") as name:
        folder = Path(name)
        try:
            snapshot = take(library(), directories, folder / "policy")
        except ConfigurationError as error:
            return error.faults
        faults = check_snapshot(program, snapshot, folder)
        if faults:
            return faults
        schemas = ["--schema", str(library() / "schemas")]
        sources = [str(snapshot.directories[0]), *map(str, directories)]  # the author's tests too
        faults = opa.faults(opa.run(program, ["check", "--strict", "--format", "json", *schemas, *sources]))
    style = opa.run(program, ["fmt", "--list", *map(str, directories)])
    return faults + [
        f"{file}: is not in OPA's standard format (opa fmt --write)"
        for file in style.stdout.split("\n")
        if file
    ]


def test(directories: Sequence[Path]) -> int:
    """Runs the ``*_test.rego`` in the directories, prints what they say and which lines they reach; OPA's exit code."""
    program = opa.find_opa()
    with tempfile.TemporaryDirectory(prefix="taskgrant-test-") as name:
        # Our own tests are left out: they are about our policies without the author's.
        ours = str(take(library(), (), Path(name) / "policy").directories[0])
        sources = [ours, *map(str, directories)]
        tests = opa.run(program, ["test", *sources])
        sys.stdout.write(tests.stdout + tests.stderr)
        if tests.returncode != 0:
            return tests.returncode
        coverage = json.loads(opa.run(program, ["test", "--coverage", *sources]).stdout)
    for file, lines in sorted(coverage["files"].items()):
        if not file.startswith(ours) and not file.endswith("_test.rego"):
            missed = ", ".join(_span(one) for one in lines.get("not_covered", []))
            sys.stdout.write(
                f"{file}: {lines.get('coverage', 0):g} %{missed and ', not reached: '}{missed}\n"
            )
    return 0


def try_(directories: Sequence[Path], document: dict[str, Any]) -> dict[str, Any]:
    """The decision on a call that is written by hand, with ``miss``: what each grant does not cover. On egress, if the
    action says so.

    Raises ``ConfigurationError`` when the document is no input, or the policies fail on it.
    """
    program = opa.find_opa()
    action = document.get("action")
    name = action.get("name") if isinstance(action, dict) else None
    package = "egress" if str(name).startswith("egress/") else "authz"
    schema = library() / "schemas" / f"{package}_input.json"
    with tempfile.TemporaryDirectory(prefix="taskgrant-try-") as temporary:
        folder = Path(temporary)
        snapshot = take(library(), directories, folder / "policy")
        faults = check_snapshot(program, snapshot, folder)
        if faults:
            raise ConfigurationError(faults)
        arguments = ["eval", "--format", "json", "--stdin-input", "--strict-builtin-errors"]
        text = json.dumps(document)
        found = _evaluate(
            program, [*arguments, "--data", f"schema:{schema}", "json.match_schema(input, data.schema)"], text
        )
        if found[0] is not True:
            raise ConfigurationError([f"the input: {one['error']}" for one in found[1]])
        data = [argument for copy in snapshot.directories for argument in ("--data", str(copy))]
        decision: dict[str, Any] = _evaluate(
            program, [*arguments, *data, f"data.taskgrant.{package}.decision"], text
        )
        return decision


def _evaluate(program: str, arguments: list[str], text: str) -> Any:
    answer = opa.run(program, arguments, text)
    faults = opa.faults(answer)
    if faults:
        raise ConfigurationError(faults)
    results = json.loads(answer.stdout).get("result")
    if not results:
        raise ConfigurationError(["the decision is undefined: a call would be refused with policy_error"])
    return results[0]["expressions"][0]["value"]


def _span(lines: dict[str, Any]) -> str:
    first, last = lines["start"]["row"], lines["end"]["row"]
    return str(first) if first == last else f"{first}-{last}"
