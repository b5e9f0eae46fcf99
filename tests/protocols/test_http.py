import json
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrant.model.call import Call, Head, Kind, Malformed, Outbound, Refusal
from taskgrant.model.catalogue import Operation, Server, ServerProtocol
from taskgrant.model.codes import Code
from taskgrant.protocols.http import HttpCodec

CODEC = HttpCodec()
JSON_TYPE = ("content-type", "application/json")
SERVER = Server(
    "tickets",
    ServerProtocol.HTTP,
    "https://tickets.example/api/",
    operations=(
        Operation("get_ticket", "GET", "/tickets/{id}"),
        Operation("search", "GET", "/tickets", ("q", "page")),
        Operation("comment", "POST", "/tickets/{id}/comments", ("notify",)),
        Operation("close", "DELETE", "/tickets/{id}"),
        Operation("look", "HEAD", "/tickets/{id}"),
    ),
)


def parse(method: str, target: str, body: bytes = b"", *headers: tuple[str, str]) -> Call | Malformed:
    path, _, query = target.partition("?")
    return CODEC.parse(SERVER, Head(method, path, query, headers), body)


def again(sent: Outbound) -> Call | Malformed:
    url = urlsplit(sent.url)
    head = Head(sent.method, url.path.removeprefix("/api"), url.query, sent.headers)
    return CODEC.parse(SERVER, head, sent.body)


def same(one: Call, other: Call | Malformed) -> bool:
    assert isinstance(other, Call), other
    return replace(other, id=one.id) == one


CALLS = {
    "path": ("GET", "/tickets/7", b"", "get_ticket", {"id": "7"}, "/tickets/7"),
    "escapes": ("GET", "/tickets/a%20%C3%A9", b"", "get_ticket", {"id": "a é"}, "/tickets/a%20%C3%A9"),
    "needless escapes": ("GET", "/tickets/%37", b"", "get_ticket", {"id": "7"}, "/tickets/7"),
    "query in catalogue order": (
        "GET",
        "/tickets?page=2&q=a+b",
        b"",
        "search",
        {"q": "a b", "page": "2"},
        "/tickets?q=a%20b&page=2",
    ),
    "all three": (
        "POST",
        "/tickets/7/comments?notify=yes",
        b'{ "text": "hi", "n": [1] }',
        "comment",
        {"id": "7", "notify": "yes", "text": "hi", "n": [1]},
        "/tickets/7/comments?notify=yes",
    ),
    "empty object": ("POST", "/tickets/7/comments", b"{}", "comment", {"id": "7"}, "/tickets/7/comments"),
    "no body": ("POST", "/tickets/7/comments", b"", "comment", {"id": "7"}, "/tickets/7/comments"),
    "delete": ("DELETE", "/tickets/7", b"", "close", {"id": "7"}, "/tickets/7"),
    "head, because named": ("HEAD", "/tickets/7", b"", "look", {"id": "7"}, "/tickets/7"),
}


@pytest.mark.parametrize(
    ("method", "target", "body", "tool", "arguments", "url"), CALLS.values(), ids=CALLS.keys()
)
def test_operations_are_tools(method, target, body, tool, arguments, url):
    parsed = parse(method, target, body, *([JSON_TYPE] if body else []))
    assert isinstance(parsed, Call), parsed
    assert (parsed.kind, parsed.tool, parsed.arguments, parsed.params) == (Kind.TOOL, tool, arguments, {})
    sent = CODEC.encode(SERVER, parsed)
    assert (sent.method, sent.url) == (method, "https://tickets.example/api" + url)
    assert bool(sent.body) == bool(body)
    assert (JSON_TYPE in sent.headers) == bool(body)
    assert same(parsed, again(sent))


REFUSED = {
    "unknown path": ("GET", "/other", b"", [], Code.UNKNOWN_OPERATION),
    "unknown method": ("PUT", "/tickets/7", b"", [], Code.UNKNOWN_OPERATION),
    "options": ("OPTIONS", "/tickets/7", b"", [], Code.UNKNOWN_OPERATION),
    "trace": ("TRACE", "/tickets/7", b"", [], Code.UNKNOWN_OPERATION),
    "traversal": ("GET", "/tickets/%2e%2e", b"", [], Code.MALFORMED),
    "slash in a segment": ("GET", "/tickets/7%2fcomments", b"", [], Code.MALFORMED),
    "unknown query": ("GET", "/tickets/7?x=y", b"", [], Code.MALFORMED),
    "repeated query": ("GET", "/tickets?q=a&q=b", b"", [], Code.MALFORMED),
    "body of a get": ("GET", "/tickets/7", b"{}", [JSON_TYPE], Code.MALFORMED),
    "body without a type": ("POST", "/tickets/7/comments", b"{}", [], Code.UNSUPPORTED),
    "form": (
        "POST",
        "/tickets/7/comments",
        b"a=b",
        [("content-type", "application/x-www-form-urlencoded")],
        Code.UNSUPPORTED,
    ),
    "gzip": (
        "POST",
        "/tickets/7/comments",
        b"{}",
        [JSON_TYPE, ("content-encoding", "gzip")],
        Code.UNSUPPORTED,
    ),
    "gzip without a body": ("DELETE", "/tickets/7", b"", [("content-encoding", "gzip")], Code.UNSUPPORTED),
    "two types": ("POST", "/tickets/7/comments", b"{}", [JSON_TYPE, JSON_TYPE], Code.MALFORMED),
    "array": ("POST", "/tickets/7/comments", b"[]", [JSON_TYPE], Code.MALFORMED),
    "duplicates": ("POST", "/tickets/7/comments", b'{"a":1,"A":2}', [JSON_TYPE], Code.MALFORMED),
    "path argument in the body": ("POST", "/tickets/7/comments", b'{"id":"8"}', [JSON_TYPE], Code.MALFORMED),
    "path argument in the body, other case": (
        "POST",
        "/tickets/7/comments",
        b'{"ID":"8"}',
        [JSON_TYPE],
        Code.MALFORMED,
    ),
    "query argument in the body": (
        "POST",
        "/tickets/7/comments",
        b'{"notify":1}',
        [JSON_TYPE],
        Code.MALFORMED,
    ),
}


@pytest.mark.parametrize(
    ("method", "target", "body", "headers", "code"), REFUSED.values(), ids=REFUSED.keys()
)
def test_everything_else_is_refused(method, target, body, headers, code):
    refused = parse(method, target, body, *headers)
    assert isinstance(refused, Malformed)
    assert refused.code is code


def test_a_catalogue_that_cannot_be_told_apart_lets_nothing_through():
    server = replace(SERVER, operations=(*SERVER.operations, Operation("close", "PUT", "/x")))
    assert isinstance(CODEC.parse(server, Head("GET", "/tickets/7"), b""), Malformed)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.sampled_from(["GET", "POST", "DELETE", "HEAD", "x"]),
    st.sampled_from(["/tickets/", "/tickets", ""]) | st.text(max_size=3),
    st.text(alphabet="a/%25eE.;+", max_size=8),
    st.sampled_from(["", "/comments"]),
    st.sampled_from(["", "notify=", "q=a", "q=a&q=b"]) | st.text(max_size=5),
    st.binary(max_size=5) | JSON.map(lambda value: json.dumps(value).encode()),
)
def test_any_bytes_are_a_call_that_goes_on_as_it_is_or_none(method, start, middle, end, query, body):
    parsed = CODEC.parse(SERVER, Head(method, start + middle + end, query, (JSON_TYPE,)), body)
    if isinstance(parsed, Call):
        assert same(parsed, again(CODEC.encode(SERVER, parsed)))
    else:
        assert isinstance(parsed, Malformed)


STATUS = {
    Code.NO_GRANT: 403,
    Code.REVOKED: 403,
    Code.UNKNOWN_OPERATION: 404,
    Code.MALFORMED: 400,
    Code.TOO_LARGE: 413,
    Code.UNSUPPORTED: 415,
    Code.RATE_LIMITED: 429,
    Code.UPSTREAM_UNREACHABLE: 502,
    Code.OUTCOME_UNKNOWN: 504,
    Code.POLICY_UNAVAILABLE: 503,
    Code.AUDIT_UNAVAILABLE: 503,
}


@pytest.mark.parametrize(("code", "status"), STATUS.items())
def test_refusals_are_problem_documents(code, status):
    parsed = parse("GET", "/tickets/7")
    answer = CODEC.refuse(parsed, Refusal(code, "because.", can_ask=True))
    problem = json.loads(answer.body)
    assert (answer.status, answer.content_type) == (status, "application/problem+json")
    assert (problem["status"], problem["code"], problem["can_ask"]) == (status, code, True)
    assert '"get_ticket"' in problem["detail"]
    assert "because." in problem["detail"]


def test_denied_and_outcome_unknown_read_differently():
    parsed = parse("GET", "/tickets/7")
    begun = CODEC.refuse(parsed, Refusal(Code.REVOKED, "the grant was revoked", begun=True))
    assert begun.status == 504
    assert "not a refusal" in json.loads(begun.body)["detail"]
    assert "was refused" not in json.loads(begun.body)["detail"]


def test_malformed_requests():
    fault = Malformed(Code.MALFORMED, "the path is odd")
    assert CODEC.refuse(fault, Refusal(fault.code, fault.detail)).status == 400
    assert CODEC.refuse(replace(fault, status=405), Refusal(fault.code, fault.detail)).status == 405
