"""Which server of the catalogue a request dials. What the catalogue does not know is refused, never guessed."""

from taskgrant.errors import Refused
from taskgrant.model.call import Head
from taskgrant.model.catalogue import DEFAULT_PORTS, Catalogue, Server, ServerProtocol
from taskgrant.model.codes import Code
from taskgrant.model.ports import Destination


def locate(catalogue: Catalogue, destination: Destination) -> Server:
    """Raises ``errors.Refused`` (unknown_server)."""
    if destination.way == "gateway":
        server = catalogue.by_name.get(destination.name)
    else:
        host, port = split(destination)
        server = catalogue.dialled(destination.scheme, host, port)
    if server is None:
        raise Refused(Code.UNKNOWN_SERVER, "this address is not in the sidecar's catalogue")
    return server


def check_path(server: Server, head: Head) -> None:
    """An MCP server has one endpoint. Raises ``errors.Refused`` (unknown_operation) for any other path."""
    endpoint = server.url.path or "/"
    if server.protocol is ServerProtocol.MCP and head.path != endpoint:
        raise Refused(Code.UNKNOWN_OPERATION, f"the MCP endpoint of {server.name} is {endpoint}")


def split(destination: Destination) -> tuple[str, int]:
    """Host and port that were dialled."""
    host, colon, port = destination.name.rpartition(":")
    if not colon or not port.isdecimal():  # an address of IPv6 is in brackets
        return destination.name, DEFAULT_PORTS[destination.scheme]
    return host, int(port)
