"""Requests that are no tool calls: what of them is seen, what passes, and in which form."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrant.model.call import Head, Malformed
from taskgrant.model.codes import Code
from taskgrant.model.egress import Body, EgressHost, EgressRequest
from taskgrant.protocols.egress import canonical_path, encode, parse
from taskgrant.protocols.paths import PathFault

API = EgressHost(
    "api.example", upstream="https://10.0.0.1:8443/base/", headers=("api-version",), secrets=("x-api-key",),
    visible=("model", "tools"),
)  # fmt: skip
MIRROR = EgressHost("mirror.example", upstream="https://mirror.example", body=Body.ANY)
JSON = ("content-type", "application/json")


def post(body: bytes = b'{"model": "m", "input": [1.0, 1e3]}', *headers: tuple[str, str]) -> Head:
    return Head("POST", "/v1/messages", "beta=true&x&y=a+b&y=%26", (("host", "api.example"), JSON, *headers))


def read(host: EgressHost, head: Head, body: bytes = b"") -> EgressRequest:
    found = parse(host, head, body)
    assert isinstance(found, EgressRequest)
    return found


def test_what_is_seen_and_what_passes():
    head = post(
        b"", ("x-api-key", "secret"), ("api-version", "1"), ("cookie", "c"), ("x-forwarded-for", "::1")
    )
    request = read(API, head, b'{"model": "m", "input": [1.0, 1e3], "tools": [{"type": "x"}]}')
    assert request.headers == (JSON, ("api-version", "1"))
    assert request.members == ("model", "input", "tools")
    assert request.visible == {"model": "m", "tools": [{"type": "x"}]}
    assert request.query == (("beta", "true"), ("x", None), ("y", "a b"), ("y", "&"))
    out = encode(request)
    assert (out.method, out.url) == (
        "POST",
        "https://10.0.0.1:8443/base/v1/messages?beta=true&x&y=a%20b&y=%26",
    )
    assert out.headers == (JSON, ("api-version", "1"), ("x-api-key", "secret"))
    assert out.body == b'{"model":"m","input":[1.0,1000.0],"tools":[{"type":"x"}]}'


def test_any_body_passes_as_it_is_where_that_was_said():
    head = Head("PUT", "/blob", "", (("content-type", "application/octet-stream"),))
    request = read(MIRROR, head, b"\0\1")
    assert (request.body, request.members, request.visible) == (b"\0\1", (), {})


@pytest.mark.parametrize(
    ("host", "head", "body", "code"),
    [
        (API, Head("TRACE", "/"), b"", Code.UNSUPPORTED),
        (API, Head("GET", "/", "", (("upgrade", "websocket"),)), b"", Code.UNSUPPORTED),
        (API, Head("GET", "/a/../b"), b"", Code.MALFORMED),
        (API, Head("GET", "/a", "x=\x00"), b"", Code.MALFORMED),
        (API, Head("GET", "/"), b"{}", Code.MALFORMED),
        (API, post(), b'{"model": 1, "model": 2}', Code.MALFORMED),
        (API, post(), b'{"tools": [], "Tools": []}', Code.MALFORMED),
        (API, post(), b"[]", Code.MALFORMED),
        (API, Head("POST", "/", "", (("content-type", "text/plain"),)), b"{}", Code.UNSUPPORTED),
        (API, Head("POST", "/"), b"{}", Code.UNSUPPORTED),
        (API, post(b"", ("content-encoding", "gzip")), b"{}", Code.UNSUPPORTED),
        (MIRROR, post(b"", ("content-encoding", "gzip")), b"{}", Code.UNSUPPORTED),
        (API, post(b"", ("x-api-key", "a"), ("x-api-key", "b")), b"{}", Code.MALFORMED),
        (API, post(b"", JSON), b"{}", Code.MALFORMED),
    ],
)
def test_what_is_refused(host, head, body, code):
    found = parse(host, head, body)
    assert isinstance(found, Malformed)
    assert found.code is code


def test_a_body_may_be_encoded_where_it_is_not_read_and_that_was_said():
    host = EgressHost("m.example", upstream="https://m.example", body=Body.ANY, headers=("content-encoding",))
    assert ("content-encoding", "gzip") in read(
        host, post(b"", ("content-encoding", "gzip")), b"\x1f"
    ).headers


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/", "/"),
        ("/simple/a/", "/simple/a/"),
        ("/@scope%2fname", "/@scope%2Fname"),
        ("/v1/models/m:generate", "/v1/models/m:generate"),
        ("/a%20b%7E", "/a%20b~"),
    ],
)
def test_paths_have_one_form(path, form):
    assert canonical_path(path) == form
    assert canonical_path(form) == form


@pytest.mark.parametrize(
    "path", ["", "a", "//", "/a//b", "/a//", "/..", "/a/..", "/..%2fa", "/a%2f..%2fb", "/%2f",
    "/a%2f", "/a;b", "/%5c", "/%00"]
)  # fmt: skip
def test_paths_that_servers_understand_differently_are_refused(path):
    with pytest.raises(PathFault):
        canonical_path(path)


@given(st.text(alphabet="/%2fF.a~@", max_size=12))
def test_no_path_grows_dots_or_slashes(path):
    try:
        form = canonical_path("/" + path)
    except PathFault:
        return
    assert canonical_path(form) == form
    parts = form.replace("%2F", "/").split("/")
    assert not {".", ".."} & set(parts)
    assert "" not in parts[1:-1]


@given(st.binary(max_size=60), st.dictionaries(st.sampled_from(["model", "tools", "other"]), st.integers()))
def test_nothing_of_a_body_is_sent_that_was_not_read(junk, members):
    head = post()
    for body in (junk, json.dumps(members).encode()):
        found = parse(API, head, body)
        if isinstance(found, EgressRequest) and body:
            assert json.loads(found.body) == json.loads(body)
            assert list(found.members) == list(json.loads(body))
