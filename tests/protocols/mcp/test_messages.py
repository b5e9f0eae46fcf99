import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrant.protocols.mcp.messages import MessageKind, ServerMessage, classify

TABLE = {
    "request": ('{"jsonrpc":"2.0","id":"s1","method":"elicitation/create"}', MessageKind.REQUEST, "s1"),
    "escaped": ('{"jsonrpc":"2.0","id":2,"\\u006dethod":"ping"}', MessageKind.REQUEST, 2),
    "notification": ('{"jsonrpc":"2.0","method":"notifications/progress"}', MessageKind.NOTIFICATION, None),
    "response": ('{"jsonrpc":"2.0","id":1,"result":{}}', MessageKind.OTHER, None),
    "response about a method": ('{"jsonrpc":"2.0","id":1,"result":{"method":"x"}}', MessageKind.OTHER, None),
    "boolean id": ('{"id":true,"method":"x"}', MessageKind.OTHER, None),
    "numeric method": ('{"id":1,"method":1}', MessageKind.OTHER, None),
    "array": ('[{"method":"x"}]', MessageKind.OTHER, None),
    "broken": ('{"method"', MessageKind.OTHER, None),
    "nothing": ("", MessageKind.OTHER, None),
}


@pytest.mark.parametrize(("data", "kind", "rpc_id"), TABLE.values(), ids=TABLE.keys())
def test_table(data, kind, rpc_id):
    told = classify(data)
    assert (told.kind, told.id) == (kind, rpc_id)
    assert classify(data.encode()) == told


@given(st.text() | st.binary())
def test_never_raises(data):
    assert isinstance(classify(data), ServerMessage)
