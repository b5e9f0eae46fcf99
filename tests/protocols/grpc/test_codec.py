import pytest
from google.protobuf import any_pb2, descriptor_pb2
from hypothesis import given
from hypothesis import strategies as st

from taskgrant.model.call import Call, Head, Malformed, Refusal
from taskgrant.model.catalogue import Server, ServerProtocol
from taskgrant.model.codes import Code
from taskgrant.protocols.grpc.codec import GrpcCodec, timeout
from taskgrant.protocols.grpc.descriptors import read_descriptors
from taskgrant.protocols.grpc.methods import DescriptorFault
from tests.protocols.grpc.notes import Note, descriptors, note_class

SERVER = Server("notes", ServerProtocol.GRPC, "https://notes.example")
CODEC = GrpcCodec({"notes": read_descriptors(descriptors())})
MEDIA = ("content-type", "application/grpc")


def framed(message: bytes, flag: int = 0) -> bytes:
    return bytes([flag]) + len(message).to_bytes(4, "big") + message


def parse(body: bytes, path: str = "/notes.Notes/Add", *headers: tuple[str, str], method: str = "POST"):
    return CODEC.parse(SERVER, Head(method, path, "", (MEDIA, *headers)), body)


def test_a_method_is_a_tool_and_its_message_the_arguments():
    note = Note(text="hello", size=7, inner=Note(loud=True), raw=b"\0")
    call = parse(
        framed(note.SerializeToString()), "/notes.Notes/Add", ("x-other", "y"), ("grpc-timeout", "5S")
    )
    assert isinstance(call, Call)
    assert (call.tool, call.action) == ("notes.Notes/Add", "grpc/request")
    assert call.arguments == {"text": "hello", "size": "7", "inner": {"loud": True}, "raw": "AA=="}
    assert call.headers == (("grpc-timeout", "5S"),)
    out = CODEC.encode(SERVER, call)
    assert (out.url, Note.FromString(out.body[5:])) == ("https://notes.example/notes.Notes/Add", note)


@given(
    st.recursive(
        st.builds(
            Note, text=st.text(), size=st.integers(-(2**63), 2**63 - 1), loud=st.booleans(), raw=st.binary()
        ),
        lambda inner: st.builds(Note, inner=inner, text=st.text()),
        max_leaves=5,
    )
)
def test_what_goes_on_is_what_was_seen(note):
    call = parse(framed(note.SerializeToString()))
    assert isinstance(call, Call)
    assert Note.FromString(CODEC.encode(SERVER, call).body[5:]) == note


@given(st.binary(max_size=60))
def test_any_bytes_are_a_call_or_none(body):
    call = parse(framed(body))
    if isinstance(call, Call):
        again = parse(CODEC.encode(SERVER, call).body)
        assert isinstance(again, Call)
        assert again.arguments == call.arguments


BODY = framed(Note(text="a").SerializeToString())
REFUSED = {
    "unknown field": (framed(note_class("extra")(extra="x").SerializeToString()), {}, "malformed"),
    "unknown field inside": (
        framed(b"\x22\x03\x32\x01x"),
        {}, "malformed",
    ),
    "no message": (b"", {}, "malformed"),
    "cut short": (BODY[:-1], {}, "malformed"),
    "two messages": (BODY + BODY, {}, "unsupported"),
    "compressed": (framed(b"", 1), {}, "unsupported"),
    "no protobuf": (framed(b"\xff"), {}, "malformed"),
    "another type": (framed(b"\x08\x01"), {}, "malformed"),
    "no UTF-8": (framed(b"\x0a\x01\xff"), {}, "malformed"),
    "streamed to": (BODY, {"path": "/notes.Notes/Upload"}, "unsupported"),
    "unknown method": (BODY, {"path": "/notes.Notes/Nothing"}, "unknown_operation"),
    "another case": (BODY, {"path": "/notes.notes/add"}, "unknown_operation"),
    "escaped": (BODY, {"path": "/notes.Notes/%41dd"}, "unknown_operation"),
    "GET": (BODY, {"method": "GET"}, "unsupported"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "more", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_call_is_refused(body, more, code):
    call = parse(body, **more)
    assert isinstance(call, Malformed)
    assert call.code == code


@pytest.mark.parametrize("value", ["5", "S", "123456789S", "-1S", "5 S", "5D"])
def test_a_timeout_that_is_none(value):
    assert isinstance(parse(BODY, "/notes.Notes/Add", ("grpc-timeout", value)), Malformed)


@pytest.mark.parametrize("media", ["", "application/json", "application/grpc+json", "application/grpc;a=b"])
def test_only_protobuf_is_read(media):
    head = Head("POST", "/notes.Notes/Add", "", (("content-type", media),))
    call = CODEC.parse(SERVER, head, BODY)
    assert isinstance(call, Malformed)


def test_a_timeout_is_never_longer_than_what_is_left():
    call = parse(BODY, "/notes.Notes/Add", ("grpc-timeout", "5S"))
    assert (timeout(call, 60.0), timeout(call, 0.5), timeout(parse(BODY), 60.0)) == (
        "5000m",
        "500m",
        "60000m",
    )
    assert timeout(parse(BODY), 1e6) == "1000000S"


@pytest.mark.parametrize(
    ("code", "begun", "status"),
    [
        (Code.NO_GRANT, False, "7"), (Code.ARGUMENTS_REFUSED, False, "7"), (Code.MALFORMED, False, "3"),
        (Code.UNSUPPORTED, False, "12"), (Code.UNKNOWN_OPERATION, False, "12"), (Code.POLICY_UNAVAILABLE, False, "14"),
        (Code.RATE_LIMITED, False, "8"), (Code.REVOKED, True, "2"), (Code.OUTCOME_UNKNOWN, True, "2"),
    ],
)  # fmt: skip
def test_refusals_are_trailers_that_a_model_can_read(code, begun, status):
    answer = CODEC.refuse(parse(BODY), Refusal(code, "because äöü 100%\n", begun=begun))
    fields = dict(answer.headers)
    assert (answer.status, answer.body, fields["grpc-status"]) == (200, b"", status)
    assert "because %C3%A4%C3%B6%C3%BC 100%25" in fields["grpc-message"]
    assert fields["taskgrant-code"] == ("outcome_unknown" if begun else code)


def test_an_any_whose_content_is_not_known_is_refused():
    files = descriptor_pb2.FileDescriptorSet()
    any_pb2.DESCRIPTOR.CopyToProto(files.file.add())
    file = files.file.add(
        name="t.proto", package="t", syntax="proto3", dependency=["google/protobuf/any.proto"]
    )
    service = file.service.add(name="T")
    service.method.add(name="M", input_type=".google.protobuf.Any", output_type=".google.protobuf.Any")
    codec = GrpcCodec({"notes": read_descriptors(files.SerializeToString())})
    body = framed(any_pb2.Any(type_url="type.googleapis.com/x.Y", value=b"\x08\x01").SerializeToString())
    assert isinstance(codec.parse(SERVER, Head("POST", "/t.T/M", "", (MEDIA,)), body), Malformed)


def test_descriptors_that_cannot_be_used():
    lacking = descriptor_pb2.FileDescriptorSet()
    lacking.file.add(name="a.proto", dependency=["b.proto"])
    for data in (b"\xff", b"", lacking.SerializeToString()):
        with pytest.raises(DescriptorFault):
            read_descriptors(data)
