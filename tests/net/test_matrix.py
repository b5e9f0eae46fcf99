"""What a client says of whom it wants, in all combinations; and bytes that two readers could read differently.

Each matrix is one process of the agent, and each cell a test. A call that may reach the tool says in its text which
cell it is of, so that what arrives is known by name.
"""

import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import wait_for
from tests.e2e.raw import GOOD
from tests.e2e.test_what_was_decided import CHUNKED, FRAMINGS
from tests.net.pod import Pod
from tests.net.test_bypass import nobody_hears
from tests.net.world import ELSEWHERE, ELSEWHERE6, METADATA, UPSTREAM

TALK = Path(__file__).with_name("talk.py")
ANY_COMMENT = {
    "server": "desk",
    "tools": ["comment"],
    "arguments": {
        "properties": {"id": {"type": "string"}, "text": {"type": "string"}},
        "required": ["id", "text"],
    },
}
Told = dict[str, Any]


def talk(pod: Pod, cases: Sequence[Mapping[str, Any]]) -> list[Told]:
    done = pod.agent(sys.executable, str(TALK), given=json.dumps(cases))
    assert done.status == 0, done.err
    found: list[Told] = json.loads(done.out)
    return found


def post(text: str, *lines: str, hosts: Sequence[str] = ("desk.internal",), target: str = "") -> bytes:
    body = json.dumps({"text": text}).encode()
    head = [
        f"POST {target or '/tickets/7/comments'} HTTP/1.1",
        *(f"Host: {host}" for host in hosts),
        "Content-Type: application/json",
        *(lines or (f"Content-Length: {len(body)}",)),
    ]
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body


def last(data: bytes) -> str:
    """After which the sidecar closes the connection."""
    return data.replace(b"Content-Type", b"Connection: close\r\nContent-Type", 1).hex()


@contextmanager
def heard(pod: Pod) -> Iterator[list[str]]:
    """The texts of the calls that have reached the tool, once the block is over; nothing else has been reached."""
    texts: list[str] = []
    before, tools, escaped = len(pod.desk.calls), pod.tools.received, pod.world.escaped()
    yield texts
    texts += [call.message["text"] for call in pod.desk.calls[before:]]
    assert (pod.tools.received, pod.world.escaped()) == (tools, escaped)


# -- whom it is for ----------------------------------------------------------------------------------------------------

#: What is dialled. None of them decides anything, apart from those at which nothing is ever to be found.
DIALLED = {
    "the catalogue's answer": ELSEWHERE,
    "the same, IPv6": ELSEWHERE6,
    "a tool server's": UPSTREAM,
    "unlisted": "203.0.113.9",
    "metadata": METADATA,
}
NAMED = {
    "listed": "desk.internal",
    "another's": "tools.internal",
    "unlisted": "elsewhere.example",
    "none": "",
}
HOSTS: dict[str, tuple[str, ...]] = {
    "listed": ("desk.internal",),
    "with its port": ("desk.internal:443",),
    "another port": ("desk.internal:8080",),
    "another's": ("tools.internal",),
    "unlisted": ("elsewhere.example",),
    "the address": ("192.0.2.1",),
    "none": (),
    "twice": ("desk.internal", "desk.internal"),
    "two": ("desk.internal", "tools.internal"),
}
CELLS = list(itertools.product(DIALLED, [*NAMED, "no TLS"], HOSTS))


def cell_id(cell: tuple[str, str, str]) -> str:
    return "{}, named {}, Host {}".format(*cell)


def expected(dialled: str, named: str, host: str) -> tuple[str | int, bool]:
    """How it ends, a status or an error; whether the tool is reached."""
    if dialled == "metadata":
        return "ECONNRESET", False
    if host in ("none", "twice", "two") and named in ("listed", "another's", "no TLS"):
        return 400, False
    if named == "no TLS":  # at port 80, where the Host that names it decides
        if host in ("with its port", "another port") or (
            host == "the address" and DIALLED[dialled] != ELSEWHERE
        ):
            return 400, False
        return {"listed": (200, True), "another's": (400, False)}.get(host, (404, False))
    if named in ("unlisted", "none"):
        return "TLSV1_UNRECOGNIZED_NAME", False
    if named == "another's":
        return (400 if host == "another's" else 421), False
    return (200, True) if host in ("listed", "with its port") else (421, False)


@pytest.fixture(scope="module")
def matrix(pod: Pod) -> dict[tuple[str, str, str], tuple[Told, bool]]:
    """What each cell was told, and whether its call has reached the tool."""
    cases: list[dict[str, Any]] = []
    for dialled, named, host in CELLS:
        said = last(post(cell_id((dialled, named, host)), hosts=HOSTS[host]))
        tls = {} if named == "no TLS" else {"sni": NAMED[named]}
        cases.append({"host": DIALLED[dialled], "port": 443 if tls else 80, "said": said, **tls})
    with pod.task(ANY_COMMENT), heard(pod) as texts:
        told = talk(pod, cases)
    assert len(texts) == len(set(texts))
    return {cell: (each, cell_id(cell) in texts) for cell, each in zip(CELLS, told, strict=True)}


@pytest.mark.parametrize("cell", CELLS, ids=cell_id)
def test_whatever_is_dialled_one_name_decides_and_all_must_agree(matrix, cell):
    told, reached = matrix[cell]
    ends, reaches = expected(*cell)
    assert reached == reaches, told
    if isinstance(ends, int):
        assert told["statuses"] == [ends], told
        assert told.get("names", [NAMED.get(cell[1])]) == [NAMED.get(cell[1])]
    else:
        assert told.get("alert") == ends, told
        assert "names" not in told  # and no certificate for it


@pytest.mark.parametrize("name", ["desk.internal:443", "elsewhere.example:443", "169.254.169.254:80"])
def test_a_tunnel_is_not_asked_of_whom_was_dialled(pod, name):
    """CONNECT is the proxy's, and a redirected connection was for somebody else."""
    with nobody_hears(pod):
        said = f"CONNECT {name} HTTP/1.1\r\nHost: {name}\r\n\r\n".encode()
        [told] = talk(pod, [{"host": ELSEWHERE, "port": 3128, "said": said.hex()}])
    assert told["alert"] == "ECONNRESET"
    assert pod.recorded(dialled=f"{ELSEWHERE}:3128")["code"] == "unsupported"


# -- what follows what -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sni", [None, "desk.internal"], ids=["http", "https"])
def test_requests_in_one_go_are_each_decided_on(pod, sni):
    """Allowed, refused, misdirected, and one more that nobody reads."""
    tls = {} if sni is None else {"sni": sni}
    requests = [
        post("first"),
        post("refused", target="/tickets"),
        post("third"),
        post("x", hosts=("elsewhere.example:81",)),
        post("never"),
    ]
    case = {"host": ELSEWHERE, "port": 443 if tls else 80, "said": b"".join(requests).hex(), **tls}
    with pod.task(ANY_COMMENT), heard(pod) as texts:
        [told] = talk(pod, [case])
    assert told["statuses"] == [200, 404, 200, 421 if tls else 400]
    assert texts == ["first", "third"]


SIZED = json.dumps({"text": "x" * (len(GOOD) - len('{"text": ""}'))}).encode()


def framed(lines: Sequence[str], body: bytes) -> bytes:
    return post("", *lines).rpartition(b"\r\n\r\n")[0] + b"\r\n\r\n" + body


IN_CHUNKS = ["transfer-encoding: chunked"]
SPOILT = {
    **{f"{name}, {kind}": framed(lines, body) for name, lines in FRAMINGS.items()
       for kind, body in (("plain", SIZED), ("chunked", CHUNKED))},
    "bare line feeds": framed(["Content-Length: 0\nX: y"], b""),
    "a size with an underscore": framed(IN_CHUNKS, b"1_0\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n"),
    "a size in the clouds": framed(IN_CHUNKS, b"fffffffffffffffff\r\nx"),
    "a chunk that ends in a line feed": framed(IN_CHUNKS, b"2\n{}\n0\n\n"),
    "trailers that would change the head": framed(
        [*IN_CHUNKS, "trailer: content-length"],
        b"2\r\n{}\r\n0\r\ncontent-length: 3\r\nhost: elsewhere.example\r\n\r\n",
    ),
    "chunks before they existed": framed(IN_CHUNKS, CHUNKED).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "a target of another name": post("x", target="http://tools.internal/tickets/7/comments"),
    "a websocket": framed(["Upgrade: websocket", "Connection: Upgrade"], b""),
}  # fmt: skip
PASSING = {
    "as long as it says": ([f"content-length: {len(SIZED)}"], SIZED),
    "in chunks": (["transfer-encoding: chunked"], b"%x\r\n%b\r\n0\r\n\r\n" % (len(SIZED), SIZED)),
    "in chunks with extensions": (
        ["transfer-encoding: chunked"],
        b'%x;name="a;b"\r\n%b\r\n0;last\r\n\r\n' % (len(SIZED), SIZED),
    ),
    "with trailers": (
        ["transfer-encoding: chunked", "trailer: content-length"],
        b"%x\r\n%b\r\n0\r\nx-a: 3\r\n\r\n" % (len(SIZED), SIZED),
    ),
}


@pytest.fixture(scope="module")
def spoilt(pod: Pod) -> dict[tuple[str, str | None], Told]:
    """Each with what would be taken for another request after it, whole and allowed. None has reached anybody."""
    keys = [(name, sni) for name in SPOILT for sni in (None, "desk.internal")]
    cases = []
    for name, sni in keys:
        said = (SPOILT[name] + post("smuggled")).hex()
        tls = {} if sni is None else {"sni": sni}
        cases.append({"host": ELSEWHERE, "port": 443 if tls else 80, "said": said, "keep": True, **tls})
    with pod.task(ANY_COMMENT), nobody_hears(pod):
        return dict(zip(keys, talk(pod, cases), strict=True))


@pytest.mark.parametrize("sni", [None, "desk.internal"], ids=["http", "https"])
@pytest.mark.parametrize("name", SPOILT)
def test_what_two_readers_would_frame_differently_reaches_nobody(spoilt, name, sni):
    told = spoilt[name, sni]
    # Nothing, where what was sent beyond the refusal resets the connection before it is read.
    assert told.get("statuses", []) in ([400], [501], []), told
    assert told["statuses"] or "alert" in told


@pytest.mark.parametrize("sni", [None, "desk.internal"], ids=["http", "https"])
def test_what_all_read_alike_arrives_as_that_and_no_more(pod, sni):
    tls = {} if sni is None else {"sni": sni}
    before = len(pod.desk.calls)
    with pod.task(ANY_COMMENT):
        cases = [
            {"host": ELSEWHERE, "port": 443 if tls else 80, "said": last(framed(*parts)), **tls}
            for parts in PASSING.values()
        ]
        told = talk(pod, cases)
    assert [each["statuses"] for each in told] == [[200]] * len(PASSING), told
    arrived = pod.desk.calls[before:]
    assert len(arrived) == len(PASSING)
    for call in arrived:
        assert call.message == json.loads(SIZED)
        assert call.headers["content-length"] == str(len(call.body))
        assert not {"trailer", "transfer-encoding"} & set(call.headers)


# -- half of it --------------------------------------------------------------------------------------------------------

HALVES = {
    "nothing": b"",
    "half a head": b"POST /tickets/7/comments HTTP/1.1\r\nHost: desk",
    "half a body": post("half")[:-5],
    "half a chunk": framed(["transfer-encoding: chunked"], b"%x\r\n" % len(SIZED) + SIZED[:10]),
}


def test_half_of_a_request_reaches_nobody_and_holds_nothing(pod):
    """By clients that end their side, and by clients that go silent, over http, and over https when TLS stands."""
    cases = [
        {"host": ELSEWHERE, "port": 443 if tls else 80, "said": said.hex(), "end": end, "keep": True, **tls}
        for said in HALVES.values()
        for end in (False, True)
        for tls in ({}, {"sni": "desk.internal"})
    ]
    hello = bytes.fromhex("1603010200010001fc0303")
    cases += [
        {"host": ELSEWHERE, "port": 443, "said": hello.hex(), "end": end, "keep": True}
        for end in (False, True)
    ]
    with pod.task(ANY_COMMENT):
        descriptors = Path(f"/proc/{pod.sidecar_pid()}/fd")
        before = len(list(descriptors.iterdir()))
        with nobody_hears(pod):
            told = talk(pod, cases)
            assert [code for each in told for code in each.get("statuses", []) if code != 400] == []
            wait_for(lambda: len(list(descriptors.iterdir())) <= before, "they are let go", pod.process)
