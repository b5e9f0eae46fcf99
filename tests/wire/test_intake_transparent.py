"""What a request on a redirected connection means: Host names the server, and must not contradict what was dialled."""

import pytest

from taskgrant.errors import Refused
from taskgrant.model.codes import Code
from taskgrant.model.ports import Destination
from taskgrant.wire.intake import Intake, read
from taskgrant.wire.redirect.original import Dialled


def taken(
    host: str | None, dialled: Dialled | None, target: str = "/x", version: tuple[int, int] = (1, 1)
) -> Intake:
    headers = [] if host is None else [(b"Host", host.encode())]
    return read("transparent", 15001, "GET", target, version, headers, dialled)


@pytest.mark.parametrize(
    ("host", "dialled", "name"),
    [
        ("mail.internal", Dialled("192.0.2.1", 80), "mail.internal"),
        ("Mail.Internal:80", Dialled("2001:db8::1", 80), "mail.internal"),
        ("mail.internal:8080", Dialled("192.0.2.1", 8080), "mail.internal:8080"),
        ("192.0.2.1", Dialled("192.0.2.1", 80), "192.0.2.1"),
        ("[2001:db8:0::1]:81", Dialled("2001:db8::1", 81), "[2001:db8:0::1]:81"),
    ],
)
def test_host_names_the_server(host, dialled, name):
    assert taken(host, dialled).destination == Destination("transparent", name)


@pytest.mark.parametrize(
    ("host", "dialled"),
    [
        ("mail.internal", Dialled("192.0.2.1", 8080)),
        ("mail.internal:8080", Dialled("192.0.2.1", 80)),
        ("192.0.2.2", Dialled("192.0.2.1", 80)),
        ("127.0.0.1", Dialled("192.0.2.1", 80)),
        ("[2001:db8::2]", Dialled("2001:db8::1", 80)),
        ("", Dialled("192.0.2.1", 80)),
        (None, Dialled("192.0.2.1", 80)),
        ("user@mail.internal", Dialled("192.0.2.1", 80)),
    ],
)
@pytest.mark.parametrize("version", [(1, 1), (1, 0)])
def test_what_contradicts_what_was_dialled_or_names_nobody_is_refused(host, dialled, version):
    with pytest.raises(Refused) as refused:
        taken(host, dialled, version=version)
    assert refused.value.code == Code.MALFORMED


@pytest.mark.parametrize("dialled", [Dialled("192.0.2.1", 3128), None])
def test_absolute_form_is_a_proxys_whatever_was_dialled(dialled):
    intake = taken("mail.internal", dialled, "http://mail.internal/x")
    assert intake.destination == Destination("absolute", "mail.internal")


def test_who_dials_the_listener_itself_must_name_a_host_in_the_target():
    with pytest.raises(Refused) as refused:
        taken("mail.internal", None)
    assert refused.value.code == Code.UNSUPPORTED
