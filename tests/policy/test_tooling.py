"""What authors of policy run."""

from pathlib import Path

import pytest

from taskgrant.errors import ConfigurationError
from taskgrant.model.egress import EgressHost, EgressQuery, EgressRequest
from taskgrant.model.ids import CallId
from taskgrant.policy import tooling
from taskgrant.policy.documents import authz_input, egress_input
from tests.policy.make import NOW, QUERY, TASK, policy, query

DENY = """package taskgrant.authz

deny contains {"code": "denied_by_policy", "reason": "no mail"} if input.resource.properties.server == "mail"
"""
TESTED = """package taskgrant.authz_test_mine

import data.taskgrant.authz

test_mail_is_denied if {
	authz.deny["DENIAL"] with input as {"version": 1, "resource": {"properties": {"server": "mail"}}}
}
""".replace('"DENIAL"', '{"code": "denied_by_policy", "reason": "no mail"}')


@pytest.fixture(autouse=True)
def _opa(monkeypatch: pytest.MonkeyPatch, opa_binary: Path) -> None:
    monkeypatch.setenv("TASKGRANT_OPA", str(opa_binary))


def test_check_finds_nothing_wrong_with_ours(tmp_path: Path) -> None:
    assert tooling.check([policy(tmp_path / "p", deny=DENY, deny_test=TESTED)]) == []


@pytest.mark.parametrize(
    "text, fault",
    [
        ("package x\n\na := b\n", "x.rego:3: var b is unsafe"),
        ("package taskgrant.authz\n\ndeny contains 1 if input.contxt.calls > 3\n", "x.rego:3: undefined ref"),
        ("package x\n\na := http.send({})\n", "x.rego:3: undefined function http.send"),
        ("package x\n\na   := 1\n", "x.rego: is not in OPA's standard format"),
    ],
)
def test_check_names_file_and_line(tmp_path: Path, text: str, fault: str) -> None:
    faults = tooling.check([policy(tmp_path / "p", x=text)])
    assert len(faults) == 1
    assert faults[0].startswith(f"{tmp_path}/p/{fault}")


def test_check_reads_data_too(tmp_path: Path) -> None:
    folder = policy(tmp_path / "p")
    (folder / "twice.yaml").write_text("taskgrant: {profiles: {mail/read: {ask: false}}}")
    assert "merge error" in tooling.check([folder])[0]
    assert tooling.check([tmp_path / "missing"]) == [f"{tmp_path}/missing: no such directory"]


def test_test_prints_results_and_what_was_not_reached(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = policy(tmp_path / "p", deny=DENY, deny_test=TESTED, more="package more\n\na := 1\n")
    assert tooling.test([folder]) == 0
    said = capsys.readouterr().out
    assert "PASS" in said
    assert f"{folder}/deny.rego: 100 %" in said
    assert f"{folder}/more.rego: 0 %, not reached: 3" in said
    assert "authz/decision.rego" not in said


def test_test_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tooling.test([policy(tmp_path / "p", x_test="package x_test\n\ntest_x if 1 == 2\n")]) != 0
    assert "FAIL" in capsys.readouterr().out


def test_try_shows_the_decision_with_what_was_missed(tmp_path: Path) -> None:
    folder = policy(tmp_path / "p")
    allowed = tooling.try_([folder], authz_input(QUERY))
    assert (allowed["allow"], allowed["grant_id"]) == (True, "grant-1")
    denied = tooling.try_([folder], authz_input(query(call={"arguments": {}})))
    assert denied["miss"] == {"grant-1": ["arguments: required"]}


def test_try_of_what_is_no_call(tmp_path: Path) -> None:
    rules = """taskgrant: {destinations: {api.example: {allow: [{methods: [GET], paths: ["/v1/*"]}]}}}"""
    folder = policy(tmp_path / "p")
    (folder / "destinations.yaml").write_text(rules)
    request = EgressRequest(CallId("call-1"), EgressHost("api.example"), "GET", "/v1/models")
    asked = egress_input(EgressQuery(request, TASK.agent, TASK, NOW))
    assert tooling.try_([folder], asked)["action"] == "pass"
    asked["resource"]["properties"]["path"] = "/v2/models"
    assert tooling.try_([folder], asked)["action"] == "refuse"
    with pytest.raises(ConfigurationError, match="the input: context: task is required"):
        tooling.try_([folder], {**asked, "context": {"time": "2026-01-01T00:00:00Z", "request": {}}})


def test_try_refuses_what_is_no_input(tmp_path: Path) -> None:
    document = authz_input(QUERY)
    document["resource"]["type"] = "thing"
    del document["context"]["time"]
    with pytest.raises(ConfigurationError) as caught:
        tooling.try_([policy(tmp_path / "p")], document)
    time, kind = sorted(caught.value.faults)
    assert time == "the input: context: time is required"
    assert kind.startswith("the input: resource.type: resource.type must be one of the following:")


def test_try_shows_what_fails(tmp_path: Path) -> None:
    broken = policy(tmp_path / "p", x="package x\n\na := b\n")
    with pytest.raises(ConfigurationError, match=r"p/x\.rego:3"):
        tooling.try_([broken], authz_input(QUERY))
    failing = policy(
        tmp_path / "q", x='package taskgrant.authz\n\ndeny contains net.cidr_contains("x", "y")\n'
    )
    with pytest.raises(ConfigurationError, match="invalid CIDR"):
        tooling.try_([failing], authz_input(QUERY))
