"""Which uids are the agent's: said in one way, and none of them root's or the sidecar's own."""

import os

import pytest

from taskgrant.app import net
from taskgrant.app.agent.run import run_agent
from taskgrant.app.config import check_own_uid
from taskgrant.app.loading import load
from taskgrant.errors import ConfigurationError

CONFIG = """\
trust_domain: test.internal
agent:
  name: researcher
{agent}
authority: {{task_binding: {binding}}}
servers:
  mail: {{protocol: mcp, upstream: "https://127.0.0.1:9443/mcp"}}
{more}
"""
TRANSPARENT = 'listen: {transparent: "127.0.0.1:15001"}'


def write(directory, agent, binding="uid", more=""):
    path = directory / "taskgrant.yaml"
    path.write_text(CONFIG.format(agent=f"  {agent}", binding=binding, more=more))
    return path


def test_one_uid_where_tasks_are_not_told_apart_by_it(tmp_path):
    assert list(load(write(tmp_path, "uid: 20001", "handle")).agent_uids) == [20001]
    assert list(load(write(tmp_path, "", "single")).agent_uids) == [os.getuid()]


def test_a_list_and_a_range(tmp_path):
    assert set(load(write(tmp_path, "uids: [20001, 20007]")).agent_uids) == {20001, 20007}
    uids = load(write(tmp_path, "uid_range: [20001, 4294967294]", more=TRANSPARENT)).agent_uids
    assert [uid in uids for uid in (0, 20000, 20001, 4294967294, 4294967295)] == [
        False,
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("agent", "told"),
    [
        ("", "2: agent: needs uids or uid_range"),
        ("uids: []", "2: agent: needs uids or uid_range"),
        ("uid: 20001", "4: agent.uid: is one uid; authority.task_binding: uid needs"),
        ("uids: [20001, 0]", "4: agent.uids.1: input should be greater than or equal to 1"),
        ("uids: [4294967295]", "4: agent.uids.0: input should be less than or equal to 4294967294"),
        ("uid_range: [0, 9]", "4: agent.uid_range.0: input should be greater than or equal to 1"),
        ("uid_range: [20009, 20001]", "4: agent.uid_range: ends before it begins"),
        ("uid_range: [20001]", "4: agent.uid_range.1: is missing"),
        (
            "uids: [20001]\n  uid_range: [20001, 20002]",
            "5: agent.uid_range: says what agent.uids says already",
        ),
        ("uids: [20001, 1337]", "4: agent.uids: contains 1337, which is redirect.uid"),
        ("uid_range: [1000, 2000]", "4: agent.uid_range: contains 1337, which is redirect.uid"),
    ],
)
def test_conflicts_are_told(tmp_path, agent, told):
    with pytest.raises(ConfigurationError) as fault:
        load(write(tmp_path, agent, more=TRANSPARENT))
    assert told in str(fault.value)


@pytest.mark.parametrize("agent", ["uids: [20001]", "uid_range: [20001, 20002]"])
def test_several_uids_need_the_binding(tmp_path, agent):
    name = agent.partition(":")[0]
    with pytest.raises(ConfigurationError, match=f"4: agent.{name}: is for authority.task_binding: uid"):
        load(write(tmp_path, agent, "handle"))


def test_no_task_may_have_the_sidecars_own_uid(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 20005)
    check_own_uid(load(write(tmp_path, "uids: [20001]")))
    with pytest.raises(ConfigurationError, match=r"agent\.uids: contains 20005, the sidecar's own uid"):
        check_own_uid(load(write(tmp_path, "uids: [20001, 20005]")))
    with pytest.raises(ConfigurationError, match=r"agent\.uid_range: contains 20005"):
        check_own_uid(load(write(tmp_path, "uid_range: [20001, 20009]")))


def test_one_command_is_not_run_for_many_uids(tmp_path):
    path = write(tmp_path, "uids: [20001]", more=TRANSPARENT)
    assert "redirect to :15001" in net.rules(load(path))
    with pytest.raises(ConfigurationError, match=r"authority\.task_binding: run-agent runs one agent"):
        run_agent(path, ["true"], [])
