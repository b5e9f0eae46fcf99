"""``taskgrant run-agent`` as a command: its exit codes, its signals, and what is left when it ends, however it does."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.processes import wait_for
from tests.net.pod import AGENT_UID, SIDECAR_UID, Pod
from tests.net.pod import pod as a_pod
from tests.net.world import readable_by_all


@pytest.fixture
def place(opa_binary) -> Iterator[Pod]:
    """A pod that nothing runs in yet."""
    with a_pod(opa_binary) as here:
        yield here


def left(place: Pod) -> list[str]:
    """Processes of the agent or the sidecar, and veth pairs, that are still there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            argv = (process / "cmdline").read_bytes().decode(errors="replace")
            uid = (process / "status").read_text().partition("Uid:\t")[2].partition("\t")[0]
        except OSError:
            continue
        if str(place.directory) in argv and uid in (str(AGENT_UID), str(SIDECAR_UID)):
            found.append(argv.replace("\0", " "))
    links = place.world.check("ip", "-brief", "link").splitlines()
    return found + [link for link in links if link.startswith("tg-")]


def test_it_exits_as_the_command_does_and_leaves_nothing(place):
    """What the command had left running ends as well."""
    script = f"(trap '' TERM HUP; exec sleep 600 {place.directory}) & exit 7"
    process = place.run_agent("sh", "-c", script)
    assert process.popen.wait(60) == 7, process.log()
    assert left(place) == []


TASKGRANT = (sys.executable, "-m", "taskgrant.cli.main")
WAIT = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(43))
open(sys.argv[1], "w").close()
signal.pause()
"""


def waiting(place: Pod) -> Path:
    """Where the agent may leave a sign that it runs."""
    signs = place.directory / "agent"
    signs.mkdir()
    os.chown(signs, AGENT_UID, AGENT_UID)
    return signs / "runs"


def test_signals_are_handed_on_and_the_end_is_the_commands(place):
    sign = waiting(place)
    process = place.run_agent(sys.executable, "-c", WAIT, str(sign))
    wait_for(sign.exists, "the agent runs", process)
    process.popen.send_signal(signal.SIGTERM)
    assert process.popen.wait(60) == 43, process.log()
    assert left(place) == []


def test_killed_it_leaves_nothing_either(place):
    sign = waiting(place)
    process = place.run_agent(sys.executable, "-c", WAIT, str(sign))
    wait_for(sign.exists, "the agent runs", process)
    assert left(place)
    process.kill()
    wait_for(lambda: left(place) == [], "nothing is left")


def test_without_a_sidecar_no_agent(place):
    sign = waiting(place)
    (place.directory / "opa").write_text("#!/bin/false\n")
    process = place.run_agent("touch", str(sign))
    assert process.popen.wait(60) == 125
    assert "the sidecar ended with" in process.log()
    assert not sign.exists()
    assert left(place) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run-agent", "CONFIG", "--", "true"], "run it as root"),
        (["net", "apply", "CONFIG"], "CAP_NET_ADMIN is needed"),
        (["net", "remove"], "CAP_NET_ADMIN is needed"),
    ],
)
def test_it_says_in_a_sentence_what_it_needs(place, arguments, told):
    config = str(place.write())
    command = place.command(*(config if argument == "CONFIG" else argument for argument in arguments))
    python = command.index(sys.executable)
    plain = ["setpriv", f"--reuid={AGENT_UID}", f"--regid={AGENT_UID}", "--clear-groups"]
    done = subprocess.run(
        [*command[:python], *plain, *command[python:]],
        capture_output=True,
        text=True,
        env=place.environment,
        pass_fds=(place.world.descriptor,),
        check=False,
    )
    assert done.returncode == 1
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def test_rules_take_one_capability_and_no_uid_in_particular(place):
    """As an init container has them, that may run again."""
    config = str(place.write())
    nobody = [
        "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
        "--bounding-set=-all,+net_admin", "--inh-caps=-all,+net_admin", "--ambient-caps=-all,+net_admin",
    ]  # fmt: skip
    tables = []
    for _ in range(2):
        place.world.check(*readable_by_all(), *nobody, *TASKGRANT, "net", "apply", config)
        tables.append(place.world.check("nft", "list", "table", "inet", "taskgrant"))
    assert tables[0] == tables[1]
    assert "redirect to :15001" in tables[0]
    place.world.check(*readable_by_all(), *nobody, *TASKGRANT, "net", "remove")
    assert "taskgrant" not in place.world.check("nft", "list", "tables")


HOLD = """
import socket, sys
sock = socket.create_connection(("198.51.100.1", int(sys.argv[1])), timeout=20)
print("connected", flush=True)
sys.stdin.readline()
try:
    sock.sendall(b"after")
    sock.recv(1)
except OSError:
    pass
"""


def test_a_connection_that_is_older_than_the_rules_is_of_no_use_afterwards(place):
    """Rules come before the agent; where they did not, what it has opened is cut off as well."""
    config = str(place.write())
    heard = bytearray()
    with place.world.listen() as listening:
        port = listening.getsockname()[1]
        agent = subprocess.Popen(
            [*place.world.prefix, *readable_by_all(), "setpriv", f"--reuid={AGENT_UID}", "--clear-groups",
             sys.executable, "-c", HOLD, str(port)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(place.world.descriptor,),
        )  # fmt: skip
        with agent:
            assert agent.stdin is not None
            assert agent.stdout is not None
            connection, _ = listening.accept()
            with connection:
                assert agent.stdout.readline() == b"connected\n"
                place.world.check(*readable_by_all(), *TASKGRANT, "net", "apply", config)
                agent.stdin.write(b"\n")
                agent.stdin.close()
                assert agent.wait(60) == 0
                connection.settimeout(1)
                with suppress(OSError):
                    heard += connection.recv(100)
    assert heard == b""
