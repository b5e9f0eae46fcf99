"""What a gRPC server can be called with: the methods of a serialized FileDescriptorSet, and messages as JSON objects.

    protoc --include_imports --descriptor_set_out=notes.binpb notes.proto

Messages become JSON by protobuf's own mapping, with the names of the ``.proto`` file: 64-bit integers are strings,
enums their names, bytes base64, and a field that has its default value is absent. What that mapping does not say of a
message (fields that the descriptors do not know, contents of an ``Any`` that it does not read the same way) is refused:
the server is sent what policy has seen, and nothing else.
"""

from dataclasses import dataclass

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.message import DecodeError, EncodeError, Message

from taskgrant.model.json import JsonObject
from taskgrant.protocols.grpc.methods import DescriptorFault, MessageFault, Method

_FAULTS = (DecodeError, EncodeError, json_format.Error, TypeError, ValueError, RecursionError)


@dataclass(frozen=True, slots=True)
class DescribedMethod:
    """``methods.Method``."""

    name: str
    client_streaming: bool
    server_streaming: bool
    _request: type[Message]
    _pool: descriptor_pool.DescriptorPool

    def read(self, data: bytes) -> JsonObject:
        message = self._request()
        try:
            message.ParseFromString(data)
            size = message.ByteSize()
            message.DiscardUnknownFields()
            if message.ByteSize() != size:
                raise MessageFault("the message has fields that the descriptors do not know")
            found: JsonObject = json_format.MessageToDict(
                message, preserving_proto_field_name=True, descriptor_pool=self._pool
            )
            if self.write(found) != message.SerializeToString(deterministic=True):
                raise MessageFault("the message says what JSON does not")
        except MessageFault:
            raise
        except _FAULTS as fault:
            raise MessageFault("the message is none of this method's") from fault
        return found

    def write(self, arguments: JsonObject) -> bytes:
        message = self._request()
        try:
            json_format.ParseDict(dict(arguments), message, descriptor_pool=self._pool)
            return message.SerializeToString(deterministic=True)
        except _FAULTS as fault:
            raise MessageFault("the arguments are no message of this method's") from fault


def read_descriptors(data: bytes) -> dict[str, Method]:
    """The methods, by name. Raises DescriptorFault."""
    pool = descriptor_pool.DescriptorPool()
    try:
        files = descriptor_pb2.FileDescriptorSet.FromString(data)
        for file in files.file:
            pool.Add(file)
        methods: dict[str, Method] = {}
        for file in files.file:
            for service in pool.FindFileByName(file.name).services_by_name.values():
                for each in service.methods:
                    request = message_factory.GetMessageClass(each.input_type)
                    name = f"{service.full_name}/{each.name}"
                    methods[name] = DescribedMethod(
                        name, each.client_streaming, each.server_streaming, request, pool
                    )
    except (DecodeError, TypeError, KeyError, ValueError) as fault:
        raise DescriptorFault(f"is no FileDescriptorSet with all its imports: {fault}") from fault
    if not methods:
        raise DescriptorFault("has no service: nothing could be called")
    return methods
