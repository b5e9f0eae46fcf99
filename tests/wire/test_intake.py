"""What a request means to a listener: named cases, each refused with its code or understood."""

import base64

import pytest

from taskgrant.errors import Refused
from taskgrant.model.ports import Destination
from taskgrant.wire.intake import Intake, is_loopback, read

PORT = 15002


def gateway(target: str, *headers: tuple[str, str], host: str = f"127.0.0.1:{PORT}") -> Intake:
    raw = [(name.encode(), value.encode()) for name, value in (("Host", host), *headers)]
    return read("gateway", PORT, "POST", target, (1, 1), raw)


def proxy(target: str, *headers: tuple[str, str], host: str = "tool.example.org") -> Intake:
    raw = [(name.encode(), value.encode()) for name, value in (("Host", host), *headers)]
    return read("absolute", 15001, "POST", target, (1, 1), raw)


@pytest.mark.parametrize(
    "target, name, path, query",
    [
        ("/mail/mcp", "mail", "/mcp", ""),
        ("/mail", "mail", "/", ""),
        ("/mail/", "mail", "/", ""),
        ("/mail//a?b=/c", "mail", "//a", "b=/c"),
        ("/", "", "/", ""),
        ("/ma%69l/x", "ma%69l", "/x", ""),
    ],
)
def test_the_first_segment_names_the_server(target: str, name: str, path: str, query: str) -> None:
    intake = gateway(target)
    assert intake.destination == Destination("gateway", name)
    assert (intake.head.path, intake.head.query) == (path, query)


@pytest.mark.parametrize(
    "target, host, name",
    [
        ("http://tool.example.org/x", "tool.example.org", "tool.example.org"),
        ("http://Tool.example.org:80/x", "tool.example.org", "tool.example.org"),
        ("http://tool.example.org:8080/x", "tool.example.org:8080", "tool.example.org:8080"),
    ],
)
def test_an_absolute_target_names_the_host(target: str, host: str, name: str) -> None:
    intake = proxy(target, host=host)
    assert (intake.destination, intake.head.path) == (Destination("absolute", name), "/x")


@pytest.mark.parametrize(
    "host", [f"localhost:{PORT}", f"127.0.0.1:{PORT}", f"127.9.9.9:{PORT}", f"[::1]:{PORT}"]
)
def test_hosts_that_are_ours(host: str) -> None:
    assert gateway("/mail/mcp", host=host).destination.name == "mail"


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:1",
        f"evil.example:{PORT}",
        f"10.0.0.1:{PORT}",
        f"localhost.evil.example:{PORT}",
    ],
)
def test_hosts_that_are_not_ours(host: str) -> None:
    with pytest.raises(Refused) as caught:
        gateway("/mail/mcp", host=host)
    assert caught.value.code == "forbidden"


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1", "https://[::1]:1"])
def test_origins_on_this_machine(origin: str) -> None:
    assert gateway("/mail/mcp", ("Origin", origin)).destination.name == "mail"


@pytest.mark.parametrize(
    "origin", ["null", "", "http://evil.example", "file://localhost", "http://[", "http://localhost.evil"]
)
def test_other_origins(origin: str) -> None:
    with pytest.raises(Refused) as caught:
        gateway("/mail/mcp", ("Origin", origin))
    assert caught.value.code == "forbidden"


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "headers",
    [
        [("Taskgrant-Task", "h1")],
        [("Proxy-Authorization", "Bearer h1")],
        [("Proxy-Authorization", basic("task:h1"))],
        [("Taskgrant-Task", "h1"), ("Proxy-Authorization", basic("task:h1"))],
    ],
)
def test_a_handle_is_taken_and_stripped(headers: list[tuple[str, str]]) -> None:
    intake = proxy("http://tool.example.org/", *headers)
    assert intake.handle == "h1"
    assert [name for name, _ in intake.head.headers] == ["host"]


def test_no_handle() -> None:
    assert gateway("/mail/mcp").handle is None


@pytest.mark.parametrize(
    "headers",
    [
        [("Taskgrant-Task", "h1"), ("Taskgrant-Task", "h1")],
        [("Taskgrant-Task", "h1"), ("Proxy-Authorization", "Bearer h2")],
        [("Proxy-Authorization", "Bearer h1"), ("Proxy-Authorization", "Bearer h1")],
        [("Taskgrant-Task", "")],
        [("Taskgrant-Task", "h" * 513)],
        [("Proxy-Authorization", basic("user:h1"))],
        [("Proxy-Authorization", basic("task"))],
        [("Proxy-Authorization", "Basic !!!")],
        [("Proxy-Authorization", "Digest h1")],
    ],
)
def test_handles_that_are_final(headers: list[tuple[str, str]]) -> None:
    with pytest.raises(Refused) as caught:
        gateway("/mail/mcp", *headers)
    assert caught.value.code == "handle_invalid"


@pytest.mark.parametrize(
    "listen, target, code",
    [
        (gateway, "http://127.0.0.1:15002/mail", "unsupported"),
        (proxy, "/mail/mcp", "unsupported"),
        (proxy, "https://tool.example.org/", "malformed"),
        (gateway, "*", "unsupported"),
    ],
)
def test_targets_of_another_listener(listen, target: str, code: str) -> None:
    with pytest.raises(Refused) as caught:
        listen(target)
    assert caught.value.code in (code, "unsupported")


@pytest.mark.parametrize(
    "host, expected", [("localhost", True), ("[::1]", True), ("127.1", False), ("example.org", False)]
)
def test_is_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
