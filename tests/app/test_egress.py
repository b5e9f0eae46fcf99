"""The egress section: hosts that are no tool servers, and what is said of them."""

import pytest

from taskgrant.app.loading import load
from taskgrant.model.egress import Body, Mode
from tests.app.test_config import GOOD, faults, write


def test_what_is_said_of_hosts(tmp_path):
    text = GOOD + (
        "egress:\n"
        "  api.example:\n"
        "    trust: roots.pem\n"
        "    headers: [anthropic-version]\n"
        "    secrets: [x-api-key]\n"
        "    visible: [system]\n"
        "  mirror.example:8443: {upstream: 'https://10.0.0.1:9443/simple', body: any}\n"
        "  pinned.example: {mode: splice}\n"
        "  db.example:5432: {mode: opaque, addresses: [192.0.2.7, '2001:db8::7']}\n"
        "  192.0.2.8:22: {mode: opaque}\n"
    )
    (tmp_path / "roots.pem").touch()
    hosts = load(write(tmp_path, text)).egress_hosts()
    api, mirror, pinned, database, box = hosts.hosts
    assert (api.upstream, api.trust) == ("https://api.example", str(tmp_path / "roots.pem"))
    assert (api.headers, api.secrets) == (("anthropic-version",), ("x-api-key",))
    assert {"model", "tools", "mcp_servers", "system"} <= set(api.visible)
    assert (mirror.upstream, mirror.body, mirror.port) == ("https://10.0.0.1:9443/simple", Body.ANY, 8443)
    assert (pinned.mode, pinned.port) == (Mode.SPLICE, None)
    assert hosts.opaque("db.example", 5432) == hosts.opaque("2001:db8::7", 5432) == database
    assert hosts.opaque("192.0.2.8", 22) == box
    assert hosts.opaque("192.0.2.7", 22) is None
    assert hosts.dialled("https", "api.example", 443) == hosts.dialled("http", "api.example", 80) == api
    assert hosts.dialled("https", "api.example", 8443) is None
    assert hosts.dialled("https", "mirror.example", 8443) == mirror
    assert hosts.dialled("http", "pinned.example", 80) is None
    assert hosts.dialled("https", "db.example", 5432) is None


@pytest.mark.parametrize(
    ("said", "place", "why"),
    [
        ("a.example: {}", "egress.'a.example'", "host of servers.mail"),
        ("'b.example:443': {}", "egress.'b.example:443'", "host of servers.mail"),
        ("b.example: {mode: splice}", "egress.'b.example'", "host of servers.mail"),
        ("x.example: {mode: splice, secrets: [a]}", "egress.'x.example'.secrets", "is not for mode: splice"),
        ("x.example: {addresses: [192.0.2.1]}", "egress.'x.example'.addresses", "is not for mode: read"),
        (
            "x.example: {upstream: 'http://x.example'}",
            "egress.'x.example'.upstream",
            "must be an https:// URL",
        ),
        ("x.example: {headers: [host]}", "egress.'x.example'.headers.0", "the sidecar's own"),
        ("x.example: {secrets: [transfer-encoding]}", "egress.'x.example'.secrets.0", "the sidecar's own"),
        ("x.example: {headers: [x-a], secrets: [x-a]}", "egress.'x.example'.secrets.0", "which policy sees"),
        ("x.example: {trust: gone.pem}", "egress.'x.example'.trust", "PEM file"),
        ("x.example: {mode: opaque}", "egress.'x.example'", "say host:port"),
        ("'x.example:22': {mode: opaque}", "egress.'x.example:22'", "say in addresses where it is"),
        ("'x.example:22': {mode: opaque, addresses: [x]}", "addresses.0", "no IP address"),
        ("'x.example:99999': {}", "egress.'x.example:99999'", "no port"),
        ("A.example: {}", "egress", "pattern"),
        ("'*.example': {}", "egress", "pattern"),
        ("'[::1]': {}", "egress", "pattern"),
        ("x.example: {headers: [X-Api]}", "egress.'x.example'.headers.0", "pattern"),
        ("x.example: {mood: read}", "egress.'x.example'.mood", "is not a setting"),
    ],
)
def test_what_cannot_be_said(tmp_path, said, place, why):
    hosts = "    hosts: [a.example, 'b.example:443']\n"
    (told,) = faults(tmp_path, f"{GOOD}{hosts}egress:\n  {said}\n")
    assert place.replace("'", "") in told.replace("'", "")
    assert why in told
