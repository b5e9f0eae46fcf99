from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from taskgrant.guard.exchanges import Exchanges, Place
from taskgrant.model.json import JsonObject

ids = st.integers(-(2**53), 2**53) | st.text(max_size=5)


def request(rpc_id: Any, progress: Any = None) -> dict[str, Any]:
    meta = {} if progress is None else {"_meta": {"progressToken": progress, "kept": 1}}
    return {"jsonrpc": "2.0", "id": rpc_id, "method": "tools/call", "params": {"name": "a", **meta}}


def progress(token: Any) -> dict[str, Any]:
    return {"method": "notifications/progress", "params": {"progressToken": token, "progress": 1}}


@given(st.lists(st.tuples(ids, st.none() | ids), max_size=8), st.randoms())
def test_each_answer_comes_back_to_its_request_whatever_ids_clients_use(asked: list, order: Any) -> None:
    exchanges = Exchanges()
    opened = [exchanges.open(request(rpc_id, token)) for rpc_id, token in asked]
    assert len({token for token, _ in opened}) == len(asked)
    work = list(zip(asked, opened, strict=True))
    order.shuffle(work)
    for (rpc_id, wanted), (token, sent) in work:
        assert sent["id"] == token
        if wanted is not None:
            assert sent["params"] == {"name": "a", "_meta": {"progressToken": token, "kept": 1}}
            routed = exchanges.route(progress(token))
            assert (routed.place, routed.token) == (Place.WITHIN, token)
            assert routed.message["params"] == {"progressToken": wanted, "progress": 1}
        routed = exchanges.route({"id": token, "result": {}})
        assert (routed.place, routed.token, routed.message["id"]) == (Place.ANSWER, token, rpc_id)
        assert exchanges.route({"id": token, "result": {}}).place is Place.NOWHERE
    assert len(exchanges) == 0


def test_what_names_no_open_request_goes_nowhere() -> None:
    exchanges = Exchanges()
    token, _ = exchanges.open(request(1))
    for stranger in (token + 1, str(token), True, None, [1], float(token)):
        assert exchanges.route({"id": stranger, "result": {}}).place is Place.NOWHERE
        assert exchanges.route(progress(stranger)).place is Place.NOWHERE
    assert exchanges.route(progress(token)).place is Place.NOWHERE  # it did not ask for any
    assert exchanges.route({"method": "notifications/progress"}).place is Place.BESIDE
    assert exchanges.close(token)
    assert not exchanges.close(token)
    assert exchanges.route({"id": token, "result": {}}).place is Place.NOWHERE


def test_what_is_about_no_request_in_particular() -> None:
    exchanges = Exchanges()
    assert exchanges.newest() is None
    exchanges.open(request(1))
    token, _ = exchanges.open(request(2))
    assert exchanges.newest() == token
    messages: tuple[JsonObject, ...] = ({"method": "notifications/message"}, {"id": 1, "method": "ping"})
    for message in messages:
        assert exchanges.route(message).place is Place.BESIDE


def test_a_cancellation_names_the_request_as_the_server_knows_it() -> None:
    exchanges = Exchanges()
    token, _ = exchanges.open(request("7"))

    def cancelled(rpc_id: Any) -> Any:
        return exchanges.notice({"method": "notifications/cancelled", "params": {"requestId": rpc_id}})

    assert cancelled("7")["params"] == {"requestId": token}
    assert cancelled(7) is None
    assert cancelled(token) is None
    other = {"method": "notifications/roots/list_changed"}
    assert exchanges.notice(other) == other
    answer: JsonObject = {"id": "q-1", "result": {}}
    assert exchanges.notice(answer) == answer
