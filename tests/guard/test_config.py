from typing import Any

import pytest
from pydantic import ValidationError

from taskgrant.guard.config import GuardConfig

OPERATION = {"tool": "read", "method": "GET", "path": "/"}
GOOD: dict[str, Any] = {
    "server": "mail",
    "trust_domain": "example.org",
    "listen": "127.0.0.1:8443",
    "upstream": "http://localhost:1/mcp",
}


def test_a_socket_is_told_from_an_address() -> None:
    config = GuardConfig(**GOOD)
    assert (config.socket, config.url) == (None, "http://localhost:1/mcp")
    assert config.address == ("127.0.0.1", 8443)
    assert config.staleness_seconds == 2.0
    assert config.body_limit == 4 * 1024 * 1024
    for upstream, url in (
        ("unix:///run/t.sock:/mcp", "http://localhost/mcp"),
        ("unix:///run/t.sock", "http://localhost/"),
    ):
        config = GuardConfig(**{**GOOD, "upstream": upstream})
        assert (config.socket, config.url) == ("/run/t.sock", url)
        assert config.catalogue_entry().upstream == url
    assert GuardConfig(**{**GOOD, "listen": "[::1]:0"}).address == ("::1", 0)


@pytest.mark.parametrize(
    "changed",
    [
        {"listen": "8443"},
        {"listen": "localhost:99999"},
        {"listen": "::1:8443"},
        {"upstream": "ftp://localhost/"},
        {"upstream": "unix://relative:/mcp"},
        {"upstream": "http:///mcp"},
        {"upstream": "http://localhost/mcp?a=b"},
        {"server": "Mail"},
        {"trust_domain": "Example.org"},
        {"staleness_seconds": 0},
        {"body_limit": 0},
        {"protocol": "http"},
        {"protocol": "grpc"},
        {"unknown": 1},
        {"upstream": None},
        {"command": ["server"]},
        {"upstream": None, "command": ["server"], "protocol": "http", "operations": [OPERATION]},
        {"upstream": None, "command": ["server"], "children": 0},
    ],
)
def test_what_cannot_work_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        GuardConfig(**{**GOOD, **changed})
