"""The chain: whatever is done to a line is found, and named."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrant.audit.chain import GENESIS, BrokenLine, Link, read, seal, verify


def build(count: int) -> list[bytes]:
    lines, last = [], Link()
    for seq in range(1, count + 1):
        line, digest = seal(json.dumps({"seq": seq, "prev": last.hash, "event": "é"}).encode())
        last = Link(seq, digest)
        lines.append(line)
    return lines


def test_a_chain_holds() -> None:
    verdict = verify(build(3))
    assert verdict.ok
    assert (verdict.records, verdict.last.seq) == (3, 3)
    assert verify([]).ok


def test_the_grammar_is_what_the_documentation_says() -> None:
    (line,) = build(1)
    body = line[:-1][:-75] + b"}"
    record = json.loads(line)
    assert record["hash"] == hashlib.sha256(body).hexdigest()
    assert json.loads(body) == {"seq": 1, "prev": GENESIS, "event": "é"}


def test_a_part_is_checked_after_a_trusted_link() -> None:
    lines = build(5)
    link, _, _ = read(lines[1])
    assert verify(lines[2:], after=link).ok
    assert verify(lines[2:]).bad_line == 1
    assert verify(lines[3:], after=link).bad_line == 1


@pytest.mark.parametrize(
    "harm, bad_line",
    [
        pytest.param(lambda lines: lines.__delitem__(1), 2, id="one is lost"),
        pytest.param(lambda lines: lines.__delitem__(0), 1, id="the first is lost"),
        pytest.param(lambda lines: lines.insert(1, lines[0]), 2, id="one is there twice"),
        pytest.param(lambda lines: lines.insert(2, build(1)[0]), 3, id="one is added"),
        pytest.param(lambda lines: lines.__setitem__(slice(1, 3), lines[2:0:-1]), 2, id="two are exchanged"),
        pytest.param(lambda lines: lines.__setitem__(1, b"{}\n"), 2, id="no hash"),
        pytest.param(lambda lines: lines.__setitem__(1, b"\n"), 2, id="empty"),
        pytest.param(lambda lines: lines.__setitem__(3, lines[3][:-1]), 4, id="torn"),
        pytest.param(lambda lines: lines.__setitem__(2, seal(b'{"seq":3,"prev":"x"}')[0]), 3, id="forged"),
        pytest.param(
            lambda lines: lines.__setitem__(2, seal(b'{"seq":true,"prev":"x"}')[0]), 3, id="seq is true"
        ),
        pytest.param(
            lambda lines: lines.__setitem__(2, seal(b'{"seq":3,"seq":3,"prev":"x"}')[0]), 3, id="twice"
        ),
        pytest.param(lambda lines: lines.__setitem__(2, seal(b"[1]")[0]), 3, id="no object"),
        pytest.param(lambda lines: lines.__setitem__(2, seal(b"{nonsense}")[0]), 3, id="no JSON"),
    ],
)
def test_harm_is_found(harm, bad_line: int) -> None:
    lines = build(4)
    harm(lines)
    verdict = verify(lines)
    assert (verdict.ok, verdict.bad_line, verdict.records) == (False, bad_line, bad_line - 1)
    assert verdict.reason


@given(st.integers(0, 3), st.integers(0), st.integers(1, 255))
def test_no_byte_can_be_changed(number: int, at: int, flip: int) -> None:
    lines = build(4)
    line = bytearray(lines[number])
    line[at % len(line)] ^= flip
    lines[number] = bytes(line)
    assert not verify(lines).ok


def test_read_says_what_is_wrong() -> None:
    with pytest.raises(BrokenLine, match="was changed"):
        read(build(1)[0].replace(b"event", b"xvent"))
