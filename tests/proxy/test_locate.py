"""Who is dialled: only what the catalogue knows, by exactly the names that it gives."""

import pytest

from taskgrant.errors import Refused
from taskgrant.model.call import Head
from taskgrant.model.catalogue import Catalogue, Server, ServerProtocol
from taskgrant.model.ports import Destination
from taskgrant.proxy.locate import check_path, locate

MAIL = Server("mail", ServerProtocol.MCP, "https://10.0.0.1/mcp", ("mail.internal", "mail.internal:8080"))
WEB = Server("web", ServerProtocol.HTTP, "https://10.0.0.3/", ("web.internal:443", "[2001:db8::1]"))
DESK = Server("desk", ServerProtocol.HTTP, "https://10.0.0.2/api")
CATALOGUE = Catalogue((MAIL, DESK, WEB))


@pytest.mark.parametrize(
    ("destination", "server"),
    [
        (Destination("gateway", "mail"), MAIL),
        (Destination("gateway", "desk"), DESK),
        (Destination("absolute", "mail.internal"), MAIL),
        (Destination("absolute", "mail.internal:80"), MAIL),
        (Destination("absolute", "mail.internal:8080"), MAIL),
        (Destination("transparent", "mail.internal", "https"), MAIL),
        (Destination("connect", "mail.internal:443", "https"), MAIL),
        (Destination("connect", "mail.internal:8080", "https"), MAIL),
        (Destination("connect", "web.internal", "https"), WEB),
        (Destination("connect", "web.internal:443", "http"), WEB),
        (Destination("absolute", "[2001:db8::1]"), WEB),
        (Destination("connect", "[2001:db8::1]:443", "https"), WEB),
    ],
)
def test_known(destination, server):
    assert locate(CATALOGUE, destination) is server


@pytest.mark.parametrize(
    "destination",
    [
        Destination("gateway", "Mail"),
        Destination("gateway", ""),
        Destination("gateway", "mail.internal"),
        Destination("absolute", "mail"),
        Destination("absolute", "mail.internal:443"),
        Destination("absolute", "mail.internal."),
        Destination("connect", "mail.internal:80", "https"),
        Destination("connect", "mail.internal:8443", "https"),
        Destination("absolute", "web.internal"),
        Destination("absolute", "[2001:db8::1]:8080"),
        Destination("absolute", "169.254.169.254"),
        Destination("absolute", "10.0.0.1"),
    ],
)
def test_unknown(destination):
    with pytest.raises(Refused) as refused:
        locate(CATALOGUE, destination)
    assert refused.value.code == "unknown_server"


def test_an_mcp_server_has_one_endpoint():
    check_path(MAIL, Head("POST", "/mcp"))
    for path in ("/", "/mcp/", "/mcp/x", "/admin", "//mcp"):
        with pytest.raises(Refused):
            check_path(MAIL, Head("POST", path))
    check_path(DESK, Head("GET", "/anything"))
