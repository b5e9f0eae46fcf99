"""A real OPA reads each storable schema as we do, and none harms it."""

import http.client
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskgrant.model.matching import misses
from taskgrant.model.patterns import PatternFault, anchored
from taskgrant.model.schema import canonical
from tests.model.strategies import ARGUMENTS, FORMS, PATTERNS, TEXTS, VALUES, fitting

POLICY = """package agreement

results := [json.match_schema(pair.value, pair.schema)[0] | some pair in input.pairs]
"""
DEADLINE = 2.0  # seconds for one query on a busy machine; OPA's own share of a worst case was measured at 0.1


class Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("opa", timeout=30)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class Opa:
    def __init__(self, process: subprocess.Popen[bytes], path: Path) -> None:
        self.process = process
        self.path = path
        self.connection = Connection(path)

    def match(self, pairs: list[tuple[Any, Any]]) -> list[bool]:
        body = json.dumps(
            {"input": {"pairs": [{"schema": schema, "value": value} for schema, value in pairs]}}
        )
        self.connection.request("POST", "/v1/data/agreement/results?strict-builtin-errors=true", body)
        answer = self.connection.getresponse()
        text = answer.read()
        assert answer.status == 200, text
        results: list[bool] = json.loads(text)["result"]
        assert len(results) == len(pairs)
        return results


@pytest.fixture(scope="module")
def opa(opa_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opa]:
    folder = tmp_path_factory.mktemp("opa")
    (folder / "agreement.rego").write_text(POLICY)
    path = folder / "socket"
    command: list[str | Path] = [
        opa_binary,
        "run",
        "--server",
        "--skip-version-check",
        "--log-level=error",
        f"--addr=unix://{path}",
    ]
    with subprocess.Popen([*command, folder / "agreement.rego"], env={}) as process:
        try:
            _await_socket(process, path)
            running = Opa(process, path)
            yield running
            running.connection.close()
            assert process.poll() is None, "OPA died"
        finally:
            process.terminate()


def _await_socket(process: subprocess.Popen[bytes], path: Path) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until and process.poll() is None:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                return
        time.sleep(0.02)  # OPA has no way to say that it listens
    pytest.fail("OPA did not come up")


@settings(max_examples=100, suppress_health_check=list(HealthCheck), deadline=None)
@given(st.data())
def test_agrees_with_opa(opa: Opa, data: st.DataObject) -> None:
    pairs = []
    for form in data.draw(st.lists(FORMS, min_size=1, max_size=3)):
        # json.match_schema takes objects and arrays; anything else is text to be parsed.
        pairs += [
            (form, value)
            for value in data.draw(
                st.lists(fitting(form) | ARGUMENTS | st.lists(VALUES, max_size=2), min_size=1, max_size=4)
            )
            if isinstance(value, (dict, list))
        ]
    ours = [misses(form, value) == [] for form, value in pairs]
    assert ours == opa.match(pairs)


@settings(max_examples=100, suppress_health_check=list(HealthCheck), deadline=None)
@given(st.lists(st.tuples(PATTERNS, st.lists(TEXTS, max_size=5)), min_size=1, max_size=5))
def test_patterns_agree_with_opa(opa: Opa, cases: list[tuple[str, list[str]]]) -> None:
    pairs: list[tuple[Any, Any]] = []
    for source, texts in cases:
        try:
            anchored(source)
        except PatternFault:
            continue
        form = canonical({"properties": {"x": {"type": "string", "pattern": source}}})
        pairs += [(form, {"x": text}) for text in texts]
    assert [misses(form, value) == [] for form, value in pairs] == opa.match(pairs)


@pytest.mark.parametrize(
    "name", ["Cc", "Cf", "Co", "Ll", "Lu", "Mn", "Nd", "P", "Sc", "Zs", "Latin", "Greek", "Han", "Georgian"]
)
def test_character_properties_are_known_to_opa(opa: Opa, name: str) -> None:
    form = canonical({"properties": {"x": {"type": "string", "pattern": rf"\p{{{name}}}"}}})
    pairs = [(form, {"x": chr(point)}) for point in (*range(0x20, 0x500), 0x10A0, 0x4E00, 0xE000, 0xFF5A)]
    assert [misses(form, value) == [] for form, value in pairs] == opa.match(pairs)


BRANCHES: Any = {"anyOf": [{"type": "integer", "minimum": n} for n in range(500, 0, -1)]}
WORST: Any = {
    "alternatives": (BRANCHES, [0] * 39),
    "alternatives over an array": ({"type": "array", "items": {"anyOf": BRANCHES["anyOf"][:100]}}, [0] * 190),
    "long array, each a fault": ({"type": "array", "items": {"type": "string"}}, [0] * 19_000),
    "many members": ({"type": "object", "properties": {str(n): {"type": "null"} for n in range(500)}},
                     {"x" + str(n): None for n in range(2_000)}),
    "many members, open": ({"type": "object", "additionalProperties": True}, {str(n): None for n in range(9_000)}),
    "long text, listed": ({"anyOf": [{"const": str(n)} for n in range(250)]}, "x" * 16_000),
    "longest text": ({"type": "string", "maxLength": 1}, "é" * 600_000),
    "large pattern": ({"type": "string", "pattern": "(?:a?){999}"}, "a" * 2_000),
    "pattern of alternatives": ({"type": "string", "pattern": "(?:(?:a|ab|abc|b|bc|c)*){30}"}, "abc" * 3_000),
    "unicode pattern": ({"type": "string", "pattern": r"(?:\pL|\pN)*x"}, "é" * 2_500),
    "deep value": ({"type": "object", "additionalProperties": True}, {"a": json.loads("[" * 28 + "]" * 28)}),
    "references by name": ({"type": "object", "properties": {"$ref": {"const": "#"}, "$id": {"const": "http://x/"}}},
                           {"$ref": "#", "$id": "http://x/"}),
}  # fmt: skip


@pytest.mark.parametrize("name", WORST)
def test_what_we_let_pass_costs_opa_little(opa: Opa, name: str) -> None:
    schema, value = WORST[name]
    form = canonical({"properties": {"x": schema}})
    ours = misses(form, {"x": value})
    assert not any(miss.excessive for miss in ours), "the case is meant to be just inside the bounds"
    before = time.monotonic()
    assert opa.match([(form, {"x": value})]) == [ours == []]
    assert time.monotonic() - before < DEADLINE
    assert opa.process.poll() is None
