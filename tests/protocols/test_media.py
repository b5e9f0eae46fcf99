import pytest

from taskgrant.protocols.media import accepts, json_fault


@pytest.mark.parametrize(
    "value", ["application/json", "Application/JSON", "application/json ; charset=utf-8"]
)
def test_json(value):
    assert json_fault({"content-type": value}) is None


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": ""},
        {"content-type": "text/plain"},
        {"content-type": "application/json, text/plain"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": "application/json; charset=utf-8; x=y"},
        {"content-type": "application/json; profile=x"},
        {"content-type": "application/json", "content-encoding": "br"},
    ],
)
def test_everything_else_is_not_read(headers):
    assert json_fault(headers) is not None


@pytest.mark.parametrize(
    ("accept", "taken"),
    [
        ("text/event-stream", True),
        ("application/json, Text/Event-Stream;q=0.5", True),
        ("text/*", True),
        ("*/*", True),
        ("application/json", False),
        ("", False),
    ],
)
def test_accept(accept, taken):
    assert accepts(accept, "text/event-stream") is taken
