"""The ruleset as text: what each uid may do is shown in real namespaces by tests/net."""

import re

import pytest
from pydantic import ValidationError

from taskgrant.wire.redirect.config import RedirectConfig
from taskgrant.wire.redirect.ruleset import removal, ruleset


def chain(text: str, name: str) -> list[str]:
    found = re.search(rf"chain {name} {{\n(.*?)\n  }}", text, re.DOTALL)
    assert found is not None
    return [line.strip() for line in found[1].splitlines()]


def test_it_replaces_the_table_in_one_transaction():
    text = ruleset(RedirectConfig(), 15001)
    assert text.startswith(removal())
    assert text.count("table inet taskgrant {") == 1


def test_what_leaves_and_what_comes_in_is_dropped_unless_it_is_named():
    text = ruleset(RedirectConfig(), 15001)
    for name, hook in (("leave", "output"), ("arrive", "input")):
        assert chain(text, name)[0] == f"type filter hook {hook} priority 0; policy drop;"


def test_everything_goes_by_what_was_configured():
    text = ruleset(RedirectConfig(uid=4242, dns_port=5353), 16001)
    assert "meta l4proto tcp redirect to :16001" in chain(text, "divert")
    assert "meta l4proto { tcp, udp } th dport 53 redirect to :5353" in chain(text, "divert")
    assert "meta skuid != 4242 goto refuse" in chain(text, "leave")
    assert "1337" not in text
    assert "1500" not in text


def test_a_connections_state_lets_nobody_out_who_has_a_socket():
    """Whoever is not the sidecar is refused before any rule that accepts by a connection's mark or state."""
    rules = chain(ruleset(RedirectConfig(inbound_ports=(8080,)), 15001), "leave")
    refused = rules.index("meta skuid != 1337 goto refuse")
    by_state = [place for place, rule in enumerate(rules) if "ct state" in rule or rule.startswith("ct mark")]
    for place in by_state:
        assert place > refused or 'oifname "lo"' in rules[place] or rules[place] == ANSWERS


ANSWERS = "ct mark 0x7468 ct direction reply ct state established tcp flags & (syn | ack) != syn accept"


def test_inbound_ports_let_answers_out_and_no_connection():
    with_ports = ruleset(RedirectConfig(inbound_ports=(8080, 80, 80)), 15001)
    without = ruleset(RedirectConfig(), 15001)
    assert "7468" not in without
    assert set(with_ports.splitlines()) - set(without.splitlines()) == {
        f"    {ANSWERS}",
        "    tcp dport { 80, 8080 } ct state new tcp flags & (fin | syn | rst | ack) == syn ct mark set 0x7468 accept",
        "    ct mark 0x7468 ct state established,related accept",
    }
    assert "mark set 0x7468" not in "".join(chain(with_ports, "leave"))


def test_local_ports_are_open_at_local_addresses_only():
    rules = chain(ruleset(RedirectConfig(local_ports=(9000, 8000, 9000)), 15001), "leave")
    assert "fib daddr type local tcp dport { 8000, 9000 } accept" in rules
    assert len(rules) == len(chain(ruleset(RedirectConfig(), 15001), "leave")) + 1


@pytest.mark.parametrize("wrong", [{"uid": 0}, {"dns_port": 0}, {"local_ports": [70000]}, {"ports": [1]}])
def test_a_configuration_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValidationError):
        RedirectConfig(**wrong)
