"""A gRPC request to a Call and back. Unary requests only: one message, uncompressed, answered by one or by many.

    POST /package.Service/Method    content-type: application/grpc    compressed (1 byte, 0) | length (4) | message

Of the metadata nothing reaches the server but ``grpc-timeout``, and that no longer than the grant lives.
"""

import re
from collections.abc import Mapping
from typing import Final

from taskgrant.model.call import Answer, Call, Head, Kind, Malformed, Outbound, Refusal
from taskgrant.model.catalogue import Server
from taskgrant.model.codes import Code
from taskgrant.model.ids import new_call_id
from taskgrant.protocols.grpc.methods import MessageFault, Method
from taskgrant.protocols.grpc.status import trailers

PROTOCOL: Final = "grpc"
ACTION: Final = "grpc/request"
MEDIA: Final = "application/grpc"
PREFIX: Final = 5
_MEDIA = frozenset({MEDIA, f"{MEDIA}+proto"})
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


class GrpcCodec:
    """``ports.Codec``. ``methods``: those of each server, by its name."""

    def __init__(self, methods: Mapping[str, Mapping[str, Method]]) -> None:
        self._methods = methods

    def parse(self, server: Server, head: Head, body: bytes) -> Call | Malformed:
        """Never raises."""
        if head.method != "POST" or head.query or head.get("content-type") not in _MEDIA:
            return Malformed(Code.UNSUPPORTED, f"{server.name} is called by gRPC over HTTP/2, in protobuf")
        method = self._methods[server.name].get(head.path[1:])
        if method is None:
            return Malformed(Code.UNKNOWN_OPERATION, "the descriptors have no such method")
        if method.client_streaming:
            return Malformed(Code.UNSUPPORTED, "methods to which messages are streamed cannot be called")
        timeouts = tuple(pair for pair in head.headers if pair[0] == "grpc-timeout")
        if len(timeouts) > 1 or any(not _TIMEOUT.fullmatch(value) for _, value in timeouts):
            return Malformed(Code.MALFORMED, "grpc-timeout is malformed")
        if (fault := _framing_fault(body)) is not None:
            return fault
        try:
            arguments = method.read(body[PREFIX:])
        except MessageFault as told:
            return Malformed(Code.MALFORMED, str(told))
        return Call(
            new_call_id(), PROTOCOL, server.name, ACTION, Kind.TOOL, method.name, arguments, headers=timeouts
        )

    def encode(self, server: Server, call: Call) -> Outbound:
        """The request to the server, from the call's members only. KeyError when there is no such method."""
        method = self._methods[server.name][call.tool or ""]
        message = method.write(call.arguments)
        url = f"{server.upstream.rstrip('/')}/{method.name}"
        return Outbound("POST", url, call.headers, b"\0" + len(message).to_bytes(4, "big") + message)

    def refuse(self, call: Call | Malformed, refusal: Refusal) -> Answer:
        return Answer(200, MEDIA, b"", trailers(call, refusal))


def timeout(call: Call, left: float) -> str:
    """``grpc-timeout`` for the server: what the client gave, or what is ``left`` of the grant if that is less."""
    for name, value in call.headers:
        if name == "grpc-timeout" and (found := _TIMEOUT.fullmatch(value)) is not None:
            left = min(left, int(found[1]) * _SECONDS[found[2]])
    milliseconds = max(1, int(left * 1000))
    return f"{milliseconds}m" if milliseconds < 10**8 else f"{int(left)}S"


def _framing_fault(body: bytes) -> Malformed | None:
    if len(body) < PREFIX:
        return Malformed(Code.MALFORMED, "the request has no whole message")
    if body[0] != 0:
        return Malformed(Code.UNSUPPORTED, "compressed messages are not read")
    length = int.from_bytes(body[1:PREFIX], "big")
    if length > len(body) - PREFIX:
        return Malformed(Code.MALFORMED, "the request's message is shorter than it says")
    if length < len(body) - PREFIX:
        return Malformed(Code.UNSUPPORTED, "a request has one message")
    return None
