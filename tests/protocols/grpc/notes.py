"""Descriptors of a service, made here rather than by protoc.

package notes;  message Note { string text = 1; int64 size = 2; bool loud = 3; Note inner = 4; bytes raw = 5; }
service Notes { rpc Add (Note) returns (Note); rpc Watch (Note) returns (stream Note);
                rpc Upload (stream Note) returns (Note); }
"""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

Field = descriptor_pb2.FieldDescriptorProto


def descriptors(*extra: str) -> bytes:
    """``extra`` fields of type string follow those above."""
    file = descriptor_pb2.FileDescriptorProto(name="notes.proto", package="notes", syntax="proto3")
    note = file.message_type.add(name="Note")
    fields = [
        ("text", Field.TYPE_STRING), ("size", Field.TYPE_INT64), ("loud", Field.TYPE_BOOL),
        ("inner", Field.TYPE_MESSAGE), ("raw", Field.TYPE_BYTES), *((each, Field.TYPE_STRING) for each in extra),
    ]  # fmt: skip
    for number, (name, kind) in enumerate(fields, 1):
        note.field.add(
            name=name, number=number, type=kind, label=Field.LABEL_OPTIONAL,
            type_name=".notes.Note" if kind == Field.TYPE_MESSAGE else None,
        )  # fmt: skip
    service = file.service.add(name="Notes")
    for method, from_client, from_server in (
        ("Add", False, False), ("Other", False, False), ("Watch", False, True), ("Upload", True, False),
    ):  # fmt: skip
        service.method.add(
            name=method, input_type=".notes.Note", output_type=".notes.Note",
            client_streaming=from_client, server_streaming=from_server,
        )  # fmt: skip
    return descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()


def note_class(*extra: str):
    pool = descriptor_pool.DescriptorPool()
    pool.Add(descriptor_pb2.FileDescriptorSet.FromString(descriptors(*extra)).file[0])
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("notes.Note"))


Note = note_class()
