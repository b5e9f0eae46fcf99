import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrant.identity import spiffe
from taskgrant.identity.spiffe import CredentialId
from taskgrant.model.ids import TaskId

SEGMENTS = st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True).filter(lambda text: text not in {".", ".."})


def test_the_identities_have_the_documented_shapes() -> None:
    agent = spiffe.agent_id("example.org", "researcher")
    assert agent == "spiffe://example.org/agent/researcher"
    credential = spiffe.credential_id(agent, "task-1", "mail")
    assert credential == "spiffe://example.org/agent/researcher/task/task-1/aud/mail"
    assert spiffe.parse_credential_id(credential, "example.org") == CredentialId(
        agent, TaskId("task-1"), "mail"
    )
    assert str(spiffe.parse_credential_id(credential, "example.org")) == credential
    assert spiffe.task_of(credential) == "task-1"
    assert spiffe.guard_id("example.org", "mail") == "spiffe://example.org/guard/mail"
    assert spiffe.audience("example.org", "mail") == spiffe.guard_id("example.org", "mail")
    assert spiffe.guard_dns("example.org", "mail") == "mail.guard.example.org"
    assert spiffe.issuer("example.org") == "spiffe://example.org"


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "https://example.org/agent/a",
        "SPIFFE://example.org/agent/a",
        "spiffe://",
        "spiffe:///agent/a",
        "spiffe://Example.org/agent/a",
        "spiffe://example.org:8443/agent/a",
        "spiffe://user@example.org/agent/a",
        "spiffe://example.org/",
        "spiffe://example.org/agent/a/",
        "spiffe://example.org//agent",
        "spiffe://example.org/./agent",
        "spiffe://example.org/agent/../a",
        "spiffe://example.org/agent/a?b=c",
        "spiffe://example.org/agent/a#b",
        "spiffe://example.org/agent/%61",
        "spiffe://example.org/agent/a b",
        "spiffe://example.org/agent/ä",
        "spiffe://example.org/agent/a\n",
        "spiffe://" + "a" * 256,
        "spiffe://example.org/" + "a" * spiffe.MAX_BYTES,
        "spiffe://example.org/\udc80",
    ],
)
def test_what_is_no_spiffe_id_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match=r"SPIFFE ID|trust domain"):
        spiffe.parse(uri)


@given(SEGMENTS, SEGMENTS, SEGMENTS)
def test_a_credential_id_comes_back_in_the_parts_it_was_made_of(name: str, task: str, server: str) -> None:
    agent = spiffe.agent_id("example.org", name)
    uri = spiffe.credential_id(agent, task, server)
    assert spiffe.parse_credential_id(uri, "example.org") == CredentialId(agent, TaskId(task), server)


@given(st.text(max_size=60))
def test_whatever_is_accepted_is_spelled_one_way(text: str) -> None:
    uri = "spiffe://" + text
    try:
        read = spiffe.parse(uri)
    except ValueError:
        return
    assert str(read) == uri


@pytest.mark.parametrize(
    "uri",
    [
        "spiffe://other.org/agent/researcher/task/task-1/aud/mail",
        "spiffe://example.org/agent/researcher",
        "spiffe://example.org/guard/mail",
        "spiffe://example.org/agent/researcher/task/task-1",
        "spiffe://example.org/agent/researcher/aud/mail/task/task-1",
        "spiffe://example.org/agent/researcher/task/task-1/aud/mail/more",
        "spiffe://example.org/ns/researcher/task/task-1/aud/mail",
    ],
)
def test_another_identity_is_no_credential(uri: str) -> None:
    with pytest.raises(ValueError, match="not a credential"):
        spiffe.parse_credential_id(uri, "example.org")


@pytest.mark.parametrize(
    "owner", ["spiffe://example.org", "spiffe://example.org/guard/mail", "spiffe://example.org/agent/a/b"]
)
def test_only_an_agent_gets_a_credential(owner: str) -> None:
    with pytest.raises(ValueError, match="not the SPIFFE ID of an agent"):
        spiffe.credential_id(owner, "task-1", "mail")


def test_a_credential_id_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="at most"):
        spiffe.credential_id(spiffe.agent_id("example.org", "a" * 1100), "b" * 1100, "mail")


@pytest.mark.parametrize("server", ["Mail", "a.b", "", "-mail", "mail-", "a" * 64, "ma il"])
def test_a_server_whose_name_is_no_dns_label_has_no_guard(server: str) -> None:
    with pytest.raises(ValueError, match="DNS label"):
        spiffe.guard_dns("example.org", server)
