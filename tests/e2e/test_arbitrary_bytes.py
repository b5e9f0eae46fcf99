"""Arbitrary bytes give zero upstream requests, or exactly one that says what policy saw."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from taskgrant.audit.masking import digest
from tests.e2e.processes import installation
from tests.e2e.raw import IMPATIENT, Bytes, exchange
from tests.e2e.stand import ANYTHING_AT_ALL, LEGACY, Stand, grant, rpc_body


@pytest.fixture(scope="module")
def stand(tmp_path_factory, opa_binary) -> Iterator[Stand]:
    with installation(tmp_path_factory.mktemp("stand"), opa_binary) as place:
        yield Stand.start(place, listen=IMPATIENT)


@pytest.fixture(scope="module")
def handle(stand) -> str:
    return stand.handle(grant(arguments=ANYTHING_AT_ALL), grant("comment", "desk", arguments=ANYTHING_AT_ALL))


SEEDS = ("modern", "legacy", "proxy", "desk")


def seed(stand: Stand, handle: str, name: str, body: bytes | None = None) -> bytes:
    request = Bytes(stand, handle, "proxy" if name == "proxy" else "gateway")
    if name == "legacy":
        request = request.without("mcp-protocol-version").without("mcp-method").without("mcp-name")
        request = request.having(f"mcp-protocol-version: {LEGACY}")
        request.body = json.dumps(
            {**rpc_body("note", {"text": "a"}), "params": {"name": "note", "arguments": {"text": "a"}}}
        ).encode()
    elif name == "desk":
        request.target, request.body = "/desk/tickets/7/comments", b'{"text":"a"}'
    if body is not None:
        request.body = body
    return request.data()


def uses(stand: Stand) -> Counter[tuple[str, str, str]]:
    """What was granted and contacted a tool since ``mark``, by the trail: server, tool, digest of the arguments."""
    return Counter(
        (one["server"], one["tool"], one["arguments_digest"])
        for one in stand.records()
        if one["code"] == "granted" and "serial" in one and "tool" in one
    )


def seen(stand: Stand, tools: int, desk: int) -> Counter[tuple[str, str, str]]:
    """The same, by what the tool servers received."""
    found: Counter[tuple[str, str, str]] = Counter()
    for request in stand.tools.calls[tools:]:
        if request.method == "tools/call":
            found["tools", request.tool, digest(request.arguments)] += 1
    for request in stand.desk.requests[desk:]:
        _, _, path = request.line.split(" ")[1].partition("/api/tickets/")
        members = json.loads(request.body) if request.body else {}
        found["desk", "comment", digest({"id": unquote(path.removesuffix("/comments")), **members})] += 1
    return found


def holds(stand: Stand, data: bytes, listener: str) -> int:
    """Nothing reaches a tool, or exactly what the trail says that policy saw. Answers how many calls did."""
    stand.mark()
    tools, desk = len(stand.tools.calls), len(stand.desk.requests)
    answer = exchange(stand, data, listener)
    reached = seen(stand, tools, desk)
    assert reached == uses(stand), answer
    assert reached.total() <= max(1, answer.count(b"HTTP/1.1 200 ")), answer
    assert stand.sidecar.popen.poll() is None
    return reached.total()


BOUNDED = settings(
    max_examples=70,
    deadline=None,
    derandomize=True,  # the same examples in every run: a failure here is the product's, never luck
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
#: What parsers trip over, beside plain bytes.
TRICKS = st.sampled_from(
    [b"\r\n", b"\n", b"\r", b"\x00", b" ", b"\t", b":", b"{", b"}", b'"', b",", b"\\u0000", b"0\r\n\r\n",
     b"transfer-encoding: chunked\r\n", b"content-length: 0\r\n", b"HTTP/1.1", b"GET / HTTP/1.1\r\n\r\n", b"\xff"]
)  # fmt: skip
EDITS = st.lists(
    st.tuples(st.integers(0, 1200), st.integers(0, 40), TRICKS | st.binary(max_size=12)),
    min_size=1,
    max_size=3,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("name", SEEDS)
def test_what_is_to_be_changed_passes(stand, handle, name):
    assert holds(stand, seed(stand, handle, name), "proxy" if name == "proxy" else "gateway") == 1


@BOUNDED
@given(name=st.sampled_from(SEEDS), edits=EDITS)
def test_a_request_with_bytes_changed(stand, handle, name, edits):
    data = seed(stand, handle, name)
    for at, length, new in edits:
        at = at % (len(data) + 1)
        data = data[:at] + new + data[at + length :]
    holds(stand, data, "proxy" if name == "proxy" else "gateway")


@BOUNDED
@given(name=st.sampled_from(SEEDS), arguments=st.dictionaries(st.text(max_size=6), JSON, max_size=5) | JSON)
@example(name="modern", arguments={"n": 2**63, "f": 1.0, "z": -0.0, "e": 1e-7, "s": "\u2028\U0001f600"})
@example(name="desk", arguments={"text": {"a": [None, True, 0.1]}})
def test_any_arguments(stand, handle, name, arguments):
    """Well framed, so that most pass: what arrives is what was on record."""
    body: Any = arguments
    if name == "legacy":
        body = {**rpc_body("note", arguments), "params": {"name": "note", "arguments": arguments}}
    elif name != "desk":
        body = rpc_body("note", arguments)
    encoded = json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
    holds(stand, seed(stand, handle, name, encoded), "proxy" if name == "proxy" else "gateway")


@BOUNDED
@given(listener=st.sampled_from(["gateway", "proxy"]), data=st.binary(min_size=1, max_size=200) | TRICKS)
def test_noise(stand, listener, data):
    holds(stand, data, listener)
