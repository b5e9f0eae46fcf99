"""Methods of gRPC servers, as the codec sees them. Reading descriptors takes protobuf's own library (``descriptors``),
which a sidecar without such servers does without.
"""

from typing import Protocol

from taskgrant.model.json import JsonObject


class DescriptorFault(ValueError):
    """The bytes are no descriptors that can be used. ``str()`` says why."""


class MessageFault(ValueError):
    """The bytes are no message of the method's, or one that JSON cannot say."""


class Method(Protocol):
    """``name`` is ``package.Service/Method``, as grants and policy use it."""

    @property
    def name(self) -> str: ...
    @property
    def client_streaming(self) -> bool: ...
    @property
    def server_streaming(self) -> bool: ...

    def read(self, data: bytes) -> JsonObject:
        """A request as a JSON object. Raises MessageFault."""
        ...

    def write(self, arguments: JsonObject) -> bytes:
        """The request that ``read`` would answer these for. Raises MessageFault."""
        ...
