import pytest

from taskgrant.model.catalogue import Operation
from taskgrant.protocols.routes import RouteFault, compile_routes


def found(operations: tuple[Operation, ...], method: str, *segments: str):
    match = compile_routes(operations).find(method, segments)
    return match and (match[0].operation.tool, match[1])


OPERATIONS = (
    Operation("get", "GET", "/tickets/{id}"),
    Operation("search", "GET", "/tickets/search", ("q",)),
    Operation("comment", "POST", "/tickets/{id}/comments"),
    Operation("root", "GET", "/"),
)


def test_the_special_case_wins():
    assert found(OPERATIONS, "GET", "tickets", "7") == ("get", {"id": "7"})
    assert found(OPERATIONS, "GET", "tickets", "search") == ("search", {})
    assert found(OPERATIONS, "POST", "tickets", "7", "comments") == ("comment", {"id": "7"})
    assert found(OPERATIONS, "GET") == ("root", {})


def test_everything_else_is_unknown():
    for method, segments in [
        ("POST", ("tickets", "7")),
        ("GET", ("tickets",)),
        ("GET", ("Tickets", "7")),
        ("HEAD", ()),
    ]:
        assert found(OPERATIONS, method, *segments) is None


BAD = {
    "tool twice": (Operation("a", "GET", "/a"), Operation("a", "POST", "/a")),
    "path twice": (Operation("a", "GET", "/a/{x}"), Operation("b", "GET", "/a/{y}")),
    "neither more specific": (Operation("a", "GET", "/a/{x}"), Operation("b", "GET", "/{y}/b")),
    "trace": (Operation("a", "TRACE", "/a"),),
    "connect": (Operation("a", "CONNECT", "/a"),),
    "lower method": (Operation("a", "get", "/a"),),
    "WebSocket by POST": (Operation("a", "POST", "/a", websocket=True),),
    "relative": (Operation("a", "GET", "a"),),
    "empty segment": (Operation("a", "GET", "/a//b"),),
    "trailing slash": (Operation("a", "GET", "/a/"),),
    "dot segment": (Operation("a", "GET", "/a/../b"),),
    "part of a segment": (Operation("a", "GET", "/a/x{b}"),),
    "placeholder twice": (Operation("a", "GET", "/{b}/{b}"),),
    "placeholder and query": (Operation("a", "GET", "/{b}", ("b",)),),
    "names that differ in case": (Operation("a", "GET", "/{b}", ("B",)),),
    "query twice": (Operation("a", "GET", "/a", ("b", "b")),),
}


@pytest.mark.parametrize("operations", BAD.values(), ids=BAD.keys())
def test_catalogues_that_cannot_be_told_apart(operations):
    with pytest.raises(RouteFault):
        compile_routes(operations)


def test_different_methods_and_lengths_never_collide():
    compile_routes(
        (Operation("a", "GET", "/{x}"), Operation("b", "POST", "/{x}"), Operation("c", "GET", "/{x}/{y}"))
    )
