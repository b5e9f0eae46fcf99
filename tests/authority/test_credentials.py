"""The register of credentials: what a revocation takes along, and that nothing stays for ever."""

from taskgrant.authority.credentials import CredentialRegister, digest
from taskgrant.authority.store.statements import Credential
from taskgrant.model.ids import GrantId, TaskId
from taskgrant.model.time import Instant

T0 = Instant(1000.0)


def a_credential(serial: str, task: str = "task-a", *grants: str, not_after: float = T0 + 120) -> Credential:
    names = tuple(GrantId(grant) for grant in grants)
    return Credential(
        serial, f"j{serial}", TaskId(task), "mail", names, digest(f"t{serial}"), {}, Instant(not_after)
    )


def test_a_grants_end_takes_what_names_it_and_a_tasks_end_all_of_it():
    register = CredentialRegister(
        [a_credential("1", "task-a", "g1"), a_credential("2", "task-a", "g1", "g2")]
    )
    register.add(a_credential("3", "task-b", "g3"), T0)
    hit = register.revoke(frozenset(), frozenset({GrantId("g2")}), [TaskId("task-a")], T0)
    assert [credential.serial for credential in hit] == ["2"]
    hit = register.revoke(frozenset({TaskId("task-a")}), frozenset(), [], T0)
    assert [credential.serial for credential in hit] == ["1"]  # the other was revoked before
    assert {credential.serial for credential in register.revoked(T0)} == {"1", "2"}
    found = register.find("t3")
    assert found is not None
    assert found.revoked_at is None
    assert register.find("t4") is None


def test_what_has_run_out_is_dropped_once_slow_clocks_know_it_too():
    register = CredentialRegister([a_credential("1")])
    register.drop_expired(Instant(T0 + 179))
    assert len(register) == 1
    assert len(register.revoke(frozenset({TaskId("task-a")}), frozenset(), [], Instant(T0 + 121))) == 1
    register.add(a_credential("2", not_after=T0 + 500), Instant(T0 + 180))
    assert len(register) == 1
    assert register.find("t1") is None
    register.drop_expired(Instant(T0 + 560))
    assert len(register) == 0
