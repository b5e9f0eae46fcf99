import pytest

from taskgrant.model.json import JsonObject as Json
from taskgrant.protocols import jsonrpc
from taskgrant.protocols.jsonrpc import Notification, Request, Response, RpcFault, read

REFUSED = {
    "number": 1,
    "null": None,
    "no version": {"id": 1, "method": "m"},
    "other version": {"jsonrpc": "1.0", "id": 1, "method": "m"},
    "numeric version": {"jsonrpc": 2.0, "id": 1, "method": "m"},
    "null id": {"jsonrpc": "2.0", "id": None, "method": "m"},
    "boolean id": {"jsonrpc": "2.0", "id": True, "method": "m"},
    "float id": {"jsonrpc": "2.0", "id": 1.0, "method": "m"},
    "huge id": {"jsonrpc": "2.0", "id": 2**53 + 1, "method": "m"},
    "long id": {"jsonrpc": "2.0", "id": "x" * 257, "method": "m"},
    "object id": {"jsonrpc": "2.0", "id": {}, "method": "m"},
    "numeric method": {"jsonrpc": "2.0", "id": 1, "method": 7},
    "empty method": {"jsonrpc": "2.0", "id": 1, "method": ""},
    "unprintable method": {"jsonrpc": "2.0", "id": 1, "method": "a\nb"},
    "params by position": {"jsonrpc": "2.0", "id": 1, "method": "m", "params": []},
    "null params": {"jsonrpc": "2.0", "id": 1, "method": "m", "params": None},
    "unknown member": {"jsonrpc": "2.0", "id": 1, "method": "m", "extra": 1},
    "request and response": {"jsonrpc": "2.0", "id": 1, "method": "m", "result": {}},
    "response without id": {"jsonrpc": "2.0", "result": {}},
    "neither result nor error": {"jsonrpc": "2.0", "id": 1},
    "result and error": {"jsonrpc": "2.0", "id": 1, "result": {}, "error": {"code": 1, "message": ""}},
    "result that is no object": {"jsonrpc": "2.0", "id": 1, "result": 7},
    "error without code": {"jsonrpc": "2.0", "id": 1, "error": {"message": ""}},
    "error with more": {"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "", "x": 1}},
    "response with params": {"jsonrpc": "2.0", "id": 1, "result": {}, "params": {}},
}


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_message_is_refused(value):
    with pytest.raises(RpcFault) as fault:
        read(value)
    assert not fault.value.batch


@pytest.mark.parametrize("value", [[], [{"jsonrpc": "2.0", "id": 1, "method": "m"}]])
def test_batches_are_refused_as_such(value):
    with pytest.raises(RpcFault) as fault:
        read(value)
    assert fault.value.batch


def test_a_fault_names_the_request_that_it_is_about():
    with pytest.raises(RpcFault) as fault:
        read({"jsonrpc": "2.0", "id": "a", "method": "m", "extra": 1})
    assert fault.value.id == "a"


def test_the_three_kinds():
    assert read({"jsonrpc": "2.0", "id": -(2**53), "method": "m"}) == Request(-(2**53), "m", {})
    assert read({"jsonrpc": "2.0", "method": "m", "params": {"a": 1}}) == Notification("m", {"a": 1})
    assert read({"jsonrpc": "2.0", "id": "x", "result": {}}) == Response("x", {}, None)
    fault: Json = {"code": 1, "message": "no", "data": [1]}
    assert read({"jsonrpc": "2.0", "id": 1, "error": fault}) == Response(1, None, fault)


def test_what_is_built_is_read():
    assert read(jsonrpc.message("m", {"a": 1}, 7)) == Request(7, "m", {"a": 1})
    assert read(jsonrpc.message("m", {})) == Notification("m", {})
    assert read(jsonrpc.result(7, {"a": 1})) == Response(7, {"a": 1}, None)
    fault: Json = {"code": -1, "message": "no", "data": {"x": 1}}
    assert read(jsonrpc.error(7, -1, "no", {"x": 1})) == Response(7, None, fault)
    assert "id" not in jsonrpc.error(None, -1, "no")
