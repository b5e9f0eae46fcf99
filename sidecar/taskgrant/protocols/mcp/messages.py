"""What a message from a tool server is, told cheaply: most are responses, which are relayed without a second look."""

from dataclasses import dataclass
from enum import StrEnum

from taskgrant.protocols import strictjson
from taskgrant.protocols.jsonrpc import RpcId


class MessageKind(StrEnum):
    REQUEST = (
        "request"  # the server asks the client (sampling, elicitation, roots, ping) and waits for an ANSWER
    )
    NOTIFICATION = "notification"
    OTHER = "other"  # a response, a keep-alive, or nothing that we can read


@dataclass(frozen=True, slots=True)
class ServerMessage:
    kind: MessageKind
    id: RpcId | None = None
    method: str = ""


OTHER = ServerMessage(MessageKind.OTHER)


def classify(data: bytes | str) -> ServerMessage:
    """``data`` is the data of one event, or a JSON body. Parses only what can be a request or a notification."""
    raw = data.encode("utf-8", "replace") if isinstance(data, str) else data
    if b'"method"' not in raw and b"\\u00" not in raw:  # an escape may spell the name otherwise
        return OTHER
    try:
        value = strictjson.decode(raw)
    except strictjson.JsonFault:
        return OTHER
    if not isinstance(value, dict) or not isinstance(method := value.get("method"), str):
        return OTHER
    rpc_id = value.get("id")
    if rpc_id is None:
        return ServerMessage(MessageKind.NOTIFICATION, None, method)
    if type(rpc_id) is int or type(rpc_id) is str:
        return ServerMessage(MessageKind.REQUEST, rpc_id, method)
    return OTHER
