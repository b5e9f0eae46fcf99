"""What a configuration with redirects must say, so that the kernel can tell the agent and the sidecar apart."""

import pytest

from taskgrant.app import net
from taskgrant.app.loading import load
from taskgrant.errors import ConfigurationError

CONFIG = """\
trust_domain: test.internal
agent: {name: researcher%(agent)s}
servers:
  mail: {protocol: mcp, upstream: "https://127.0.0.1:9443/mcp"}
listen: {%(listen)s}
redirect: {%(redirect)s}
"""


def write(directory, agent=", uid: 10001", listen='transparent: "127.0.0.1:15001"', redirect=""):
    path = directory / "taskgrant.yaml"
    path.write_text(CONFIG % {"agent": agent, "listen": listen, "redirect": redirect})
    return path


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"agent": ""}, "agent.uid: is needed"),
        ({"agent": ", uid: 0"}, "agent.uid: must be neither root's nor redirect.uid"),
        ({"redirect": "uid: 10001"}, "agent.uid: must be neither root's nor redirect.uid"),
        ({"redirect": "local_ports: [8000, 15090]"}, "15090 is a port of the sidecar's own"),
        ({"redirect": "local_ports: [15001]"}, "15001 is a port of the sidecar's own"),
        ({"redirect": "inbound_ports: [8000, 15001]"}, "15001 is a port of the sidecar's own, which is for"),
        ({"redirect": "inbound_ports: [15002]"}, "15002 is a port of the sidecar's own, which is for"),
        ({"redirect": "inbound_ports: [15053]"}, "15053 is a port of the sidecar's own, which is for"),
        (
            {"redirect": "dns_port: 15001"},
            "redirect.dns_port: 15001 is the port of listen.transparent already",
        ),
        ({"redirect": "dns_port: 15002"}, "redirect.dns_port: 15002 is the port of listen.gateway already"),
        ({"redirect": "dns_port: 15090"}, "redirect.dns_port: 15090 is the port of listen.admin already"),
        ({"redirect": "dns_port: 5353, local_ports: [5353]"}, "5353 is a port of the sidecar's own"),
    ],
)
def test_conflicts_are_told(tmp_path, given, told):
    with pytest.raises(ConfigurationError) as fault:
        load(write(tmp_path, **given))
    assert told in str(fault.value)


def test_probes_may_reach_the_admin_port(tmp_path):
    """And any port that is none of the listeners'."""
    config = load(write(tmp_path, redirect="inbound_ports: [15090, 8080], local_ports: [8080]"))
    assert "tcp dport { 8080, 15090 } ct state new" in net.rules(config)


def test_the_rules_lead_to_the_configured_port(tmp_path):
    config = load(write(tmp_path, listen='transparent: "127.0.0.1:16001"'))
    assert "redirect to :16001" in net.rules(config)


@pytest.mark.parametrize("listen", ["", 'transparent: "127.0.0.1:0"'])
def test_without_a_port_that_can_be_named_there_are_no_rules(tmp_path, listen):
    with pytest.raises(ConfigurationError, match=r"listen\.transparent"):
        net.rules(load(write(tmp_path, listen=listen)))
