"""What follows from a plan: addresses, command lines, environment, names."""

import pytest

from taskgrant.app.agent.plan import Account, Plan, Uplink, environment, unprivileged

AGENT = Account(10001, 10001, "agent", "/home/agent")


def test_the_host_has_the_first_address_and_the_agent_the_second():
    uplink = Uplink.of(["198.51.100.0/30", "2001:db8::/126"])
    assert uplink.host == ("198.51.100.1/30", "2001:db8::1/126")
    assert uplink.agent == ("198.51.100.2/30", "2001:db8::2/126")


@pytest.mark.parametrize("network", ["198.51.100.1/30", "198.51.100.1/32", "nonsense", "2001:db8::/128"])
def test_a_network_has_two_addresses(network):
    with pytest.raises(ValueError, match=r"."):
        Uplink.of([network])


def test_a_plan_arrives_as_it_was_sent():
    plan = Plan(
        "/c",
        AGENT,
        AGENT,
        ("a", "b c"),
        Uplink.of(["198.51.100.0/30"]),
        "table",
        "/h",
        "/r",
        None,
        {"A": "b"},
        "/ca",
        7,
    )
    assert Plan.decode(plan.encode()) == plan


def test_the_command_has_no_privilege_and_stays_so():
    command = unprivileged(AGENT, ["curl", "--version"])
    assert command[-2:] == ("curl", "--version")
    for option in (
        "--clear-groups",
        "--no-new-privs",
        "--bounding-set=-all",
        "--ambient-caps=-all",
        "--reuid=10001",
    ):
        assert option in command[: command.index("--")]


def test_the_environment_names_no_proxy_and_nothing_of_ours():
    given = {
        "PATH": "/bin", "HTTP_PROXY": "x", "https_proxy": "x", "No_Proxy": "x", "ALL_PROXY": "x",
        "TASKGRANT_SOCKET": "x", "HOME": "/root", "USER": "root", "LOGNAME": "root",
    }  # fmt: skip
    assert environment(AGENT, given) == {
        "PATH": "/bin", "HOME": "/home/agent", "USER": "agent", "LOGNAME": "agent"
    }  # fmt: skip
