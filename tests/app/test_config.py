"""Configurations, good and broken: each fault is told with file, line and key, all of them at once."""

from pathlib import Path

import pytest

from taskgrant.app.loading import load
from taskgrant.errors import ConfigurationError

EXAMPLE = Path(__file__).parents[2] / "examples" / "quickstart" / "taskgrant.yaml"

GOOD = """\
trust_domain: test.internal
agent:
  name: researcher
servers:
  mail:
    protocol: mcp
    upstream: https://127.0.0.1:9443/mcp
"""
GRPC = GOOD.replace("mcp\n    up", "grpc\n    up").replace("/mcp", "")


def write(directory, text):
    path = directory / "taskgrant.yaml"
    path.write_text(text)
    return path


def faults(directory, text):
    path = write(directory, text)
    with pytest.raises(ConfigurationError) as error:
        load(path)
    return [fault.removeprefix(f"{path}:") for fault in error.value.faults]


def test_the_example_holds():
    config = load(EXAMPLE)
    assert [server.name for server in config.catalogue().servers] == ["office"]
    assert config.catalogue().by_host["office.internal"].name == "office"


def test_the_least_that_is_needed(tmp_path):
    config = load(write(tmp_path, GOOD))
    assert config.authority.state_dir == tmp_path / "state"
    assert config.audit.file == str(tmp_path / "audit.jsonl")
    assert config.listen.gateway == "127.0.0.1:15002"


def test_paths_are_relative_to_the_file(tmp_path):
    (tmp_path / "rules").mkdir()
    more = """\
policy:
  directories: [rules, /etc]
runtime_dir: live
control:
  socket: live/control.sock
audit:
  file: "-"
"""
    config = load(write(tmp_path, GOOD + more))
    assert config.policy.directories == (tmp_path / "rules", Path("/etc"))
    assert config.runtime_dir == tmp_path / "live"
    assert config.control.socket == tmp_path / "live" / "control.sock"
    assert config.audit.file == "-"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (GOOD + "colour: red\n", ["8: colour: is not a setting"]),
        (GOOD + "agent:\n  name: x\n", ["8: agent: is given twice"]),
        (GOOD.replace("researcher", "Not A Name"), ["3: agent.name: string should match pattern"]),
        (GOOD.replace("  name: researcher\n", "  uid: 5\n"), ["2: agent.name: is missing"]),
        (GOOD.replace("https:", "http:"), ["7: servers.mail.upstream: must be an https:// URL"]),
        (
            GOOD + "    operations: [{tool: t, method: GET, path: /t}]\n",
            ["8: servers.mail.operations: an MCP server"],
        ),
        (GOOD.replace("mcp\n    up", "http\n    up"), ["5: servers.mail: an http server needs operations"]),
        (GRPC, ["5: servers.mail: a grpc server needs descriptors"]),
        (GOOD + "    descriptors: x.binpb\n", ["8: servers.mail.descriptors: are for grpc"]),
        (GOOD + "    hosts: [A.b]\n", ["8: servers.mail.hosts.0: 'A.b' is no lower-case host"]),
        (GOOD + "listen:\n  gateway: 5\n", ["9: listen.gateway: input should be a valid string"]),
        (GOOD + "policy:\n  deadline_ms: soon\n", ["9: policy.deadline_ms: input should be a valid integer"]),
        (GOOD + "    trust: roots.pem\n", ['8: servers.mail.trust: is "taskgrant"']),
        (GOOD + "policy:\n  directories: [rules]\n", ["9: policy.directories.0: "]),
        ("[a, b]\n", ["1: (document): must be a mapping"]),
        ("a: {b\n", ["2: is not YAML"]),
        ("<<: {a: 1}\n", ["1: keys are plain words"]),
        ("a: !!python/object:os.system {}\n", ["1: a: the tag"]),
        ("a: &x [*x]\n", ["1: a.0: an alias that contains itself"]),
    ],
    ids=lambda value: value[0][:40] if isinstance(value, list) else "",
)
def test_one_fault(tmp_path, text, told):
    seen = faults(tmp_path, text)
    assert len(seen) == len(told)
    for fault, start in zip(seen, told, strict=True):
        assert fault.startswith(start)


def test_all_faults_at_once(tmp_path):
    text = (
        GOOD.replace("researcher", "Not A Name").replace("mcp\n    up", "soap\n    up")
        + "colour: red\nsize: 5\n"
    )
    assert [fault.split(":")[0] for fault in faults(tmp_path, text)] == ["3", "6", "8", "9"]


def test_one_host_has_one_server(tmp_path):
    text = (
        GOOD
        + "    hosts: [x.internal]\n  desk:\n    protocol: mcp\n    upstream: https://h/\n    hosts: [x.internal]\n"
    )
    assert faults(tmp_path, text) == [
        "12: servers.desk.hosts.0: 'x.internal' is a host of servers.mail already"
    ]


def test_descriptors_that_cannot_be_read_are_named(tmp_path):
    text = GRPC + "    descriptors: notes.binpb\n"
    for content in (None, b"\xff", b""):
        if content is not None:
            (tmp_path / "notes.binpb").write_bytes(content)
        (fault,) = faults(tmp_path, text)
        assert fault.startswith("8: servers.mail.descriptors: ")
        assert "notes.binpb" in fault


def test_operations_must_be_told_apart(tmp_path):
    text = """\
trust_domain: test.internal
agent: {name: researcher}
servers:
  desk:
    protocol: http
    upstream: https://h/
    operations:
      - {tool: a, method: GET, path: "/t/{id}"}
      - {tool: b, method: GET, path: "/t/{other}"}
"""
    assert [fault.split(": ")[:2] for fault in faults(tmp_path, text)] == [["9", "servers.desk.operations.1"]]


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b""])
def test_what_cannot_be_read(tmp_path, content):
    path = tmp_path / "taskgrant.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError) as error:
        load(path)
    assert str(path) in error.value.faults[0]


@pytest.mark.parametrize(
    ("listen", "fault"),
    [
        ("gateway: 0.0.0.0:15002", "gateway: '0.0.0.0:15002' is not on loopback (127.0.0.1 or [::1])"),
        ("proxy: example.org:80", "proxy: 'example.org:80' is not on loopback (127.0.0.1 or [::1])"),
        ("admin: nowhere", "admin: 'nowhere' is no host:port"),
        ("admin: 127.0.0.1:99999", "admin: '127.0.0.1:99999' is no host:port"),
        ("admin: 127.0.0.1:15001", "admin: 127.0.0.1:15001 is the address of listen.proxy already"),
    ],
)
def test_addresses_that_cannot_be_bound(tmp_path, listen, fault):
    assert faults(tmp_path, f"{GOOD}listen:\n  {listen}\n") == [f"9: listen.{fault}"]


def test_a_fault_is_told_without_the_words_of_a_library(tmp_path):
    text = f"{GOOD}control:\n  mode: 0o777\n"
    assert faults(tmp_path, text) == ["9: control.mode: 0o777 gives others access, or sets special bits"]


def test_there_is_no_trust_to_tell_of_without_a_ca(tmp_path):
    (told,) = faults(tmp_path, GOOD + "listen:\n  trust_dir: trust\n")
    assert "listen.trust_dir" in told
    config = load(write(tmp_path, GOOD + "listen:\n  trust_dir: trust\n  ca_dir: ca\n"))
    assert (config.listen.trust_dir, config.listen.ca_dir) == (tmp_path / "trust", tmp_path / "ca")
