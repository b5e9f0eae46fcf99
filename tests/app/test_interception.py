"""What CONNECT and TLS may name, from the configuration."""

import tempfile
import time
from typing import cast

import pytest

from taskgrant.app.interception import intercepting
from taskgrant.errors import Refused
from taskgrant.model.catalogue import Catalogue, Server, ServerProtocol
from taskgrant.model.egress import EgressHost, EgressHosts, Mode
from taskgrant.model.time import Instant
from taskgrant.proxy.splicing import Splicer
from taskgrant.wire.config import ListenConfig
from taskgrant.wire.opening import Opening
from taskgrant.wire.tunnel import Admit

CATALOGUE = Catalogue(
    (Server("mail", ServerProtocol.MCP, "https://10.0.0.1/mcp", ("mail.example", "mail.example:8080")),)
)
HOSTS = EgressHosts(
    (
        EgressHost("pinned.example", Mode.SPLICE),
        EgressHost("api.example"),
        EgressHost("db.example:5432", Mode.OPAQUE, addresses=("192.0.2.7",)),
    )
)
SPLICER = cast(Splicer, type("NoSplicer", (), {"splice": None}))


class Clock:
    def now(self) -> Instant:
        return Instant(time.time())


def code(admit: Admit, host: str, port: int) -> str:
    try:
        admit(host, port)
    except Refused as refused:
        return refused.code
    return "granted"


@pytest.mark.parametrize(
    ("host", "port", "with_ca", "without"),
    [
        ("mail.example", 80, "granted", "granted"),
        ("mail.example", 443, "granted", "unsupported"),
        ("mail.example", 8080, "granted", "granted"),
        ("mail.example", 22, "unknown_server", "unknown_server"),
        ("pinned.example", 443, "granted", "granted"),
        ("pinned.example", 80, "unknown_server", "unknown_server"),
        ("10.0.0.1", 443, "unknown_server", "unknown_server"),
        ("api.example", 443, "granted", "unsupported"),
        ("api.example", 80, "granted", "granted"),
        ("db.example", 5432, "granted", "granted"),
        ("db.example", 443, "unknown_server", "unknown_server"),
    ],
)
def test_what_connect_may_name(tmp_path, host, port, with_ca, without):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        listen = ListenConfig(ca_dir=memory, trust_dir=tmp_path / "trust")
        opened = intercepting(listen, CATALOGUE, HOSTS, SPLICER, Clock())
        assert code(opened.admit, host, port) == with_ca
        assert set(opened.speakers) == {Opening.TLS}
        assert (tmp_path / "trust" / "bundle.pem").exists()
    closed = intercepting(ListenConfig(), CATALOGUE, HOSTS, SPLICER, Clock())
    assert code(closed.admit, host, port) == without
