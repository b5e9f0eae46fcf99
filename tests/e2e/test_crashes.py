"""Limits hold across kill -9: whatever the moment, a use is had at most once, and tasks live on within one boot."""

import asyncio
import json
import os
import random
import re
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from taskgrant.model.task import Started
from tests.e2e.processes import wait_for
from tests.e2e.tools import (
    PLAIN,
    Answered,
    World,
    children,
    command,
    echo,
    get,
    grant,
    send,
    until,
    whole,
    world,
)
from tests.wire.support import SOON

AT_ONCE = 24
ROUNDS = 10
BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@pytest.fixture
def running(tmp_path: Path, opa_binary: Path) -> Iterator[World]:
    with world(tmp_path, opa_binary) as made:
        yield made


def again(running: World) -> None:
    """kill -9, and a start on the same state."""
    running.sidecar.kill()
    running.run()


async def start(running: World, count: int, **limits: Any) -> list[Started]:
    async with running.orchestrator as client:
        asked = {"purpose": "one effect", "grants": [grant(PLAIN, "write", **limits), grant(PLAIN, "read")]}
        return await asyncio.gather(*(client.start(asked) for _ in range(count)))


async def effect(peer: Any, tool: Any) -> None:
    """A tool that does what it is asked as soon as it has read it, and takes its time to say so."""
    while True:
        await tool.take(peer)
        tool.reached.set()
        await asyncio.sleep(0.05)
        await peer.send(whole(b"{}", "Content-Type: application/json"))


def effects(tool: Any) -> Counter[str]:
    """How often the tool has done what it was asked, by task."""
    bodies = [request.partition(b"\r\n\r\n")[2] for request in tool.requests if request.startswith(b"POST ")]
    return Counter(json.loads(body)["task"] for body in bodies)


def reserved(running: World) -> set[str]:
    """The tasks for which a permit is on record."""
    lines = (running.place.directory / "audit.jsonl").read_bytes().splitlines()
    seen = set()
    for line in lines:
        with suppress(ValueError):  # the last may have been cut by the kill
            record = json.loads(line)
            if (
                record["event"] == "call.decided"
                and record["code"] == "granted"
                and record["tool"] == "write"
            ):
                seen.add(record["task"])
    return seen


async def _killed_after(running: World, tool: Any, count: int, calls: list[Any]) -> list[Any]:
    asking = asyncio.gather(*calls, return_exceptions=True)
    await until(lambda: effects(tool).total() >= count)
    running.sidecar.kill()
    return list(await asking)


def kill_when(path: Path, pattern: bytes, pid: int) -> threading.Thread:
    """Kills as soon as the file has grown by something that fits: as fast as a thread can."""
    size = path.stat().st_size

    def watch() -> None:
        deadline = time.monotonic() + SOON
        with path.open("rb", buffering=0) as file:
            file.seek(size)
            while time.monotonic() < deadline:
                if re.search(pattern, file.read(1 << 20) or b""):
                    break
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    pidfd = os.pidfd_open(pid)
    thread = threading.Thread(target=watch)
    thread.start()
    return thread


async def test_a_kill_between_the_reservation_and_the_first_byte_and_after_it(running: World) -> None:
    """``max_uses: 1`` never has two effects: calls in every state at the kill, each asked again afterwards."""
    chance = random.Random(7)
    unsent = sent = 0
    audit = running.place.directory / "audit.jsonl"
    for number in range(ROUNDS):
        tasks = await start(running, AT_ONCE, max_uses=1)
        asked = {task.task.id: send("POST", "/write", {"task": task.task.id}) for task in tasks}
        async with running.tool(PLAIN, effect) as tool:
            # The connections stand: from the reservation to the first byte there is nothing to wait for.
            warm = await asyncio.gather(*(running.answer(get(), task.handle) for task in tasks))
            assert {each.code for each in warm} == {"allowed"}
            calls = [running.answer(asked[task.task.id], task.handle) for task in tasks]
            if number % 2 == 0:  # at the first permit
                killer = kill_when(audit, rb'"code": ?"granted"', running.sidecar.pid)
                before = await asyncio.gather(*calls, return_exceptions=True)
                killer.join()
            else:  # when the tool has done some of it
                before = await _killed_after(running, tool, chance.randint(1, AT_ONCE // 2), calls)
            running.sidecar.popen.wait(10)
            done = effects(tool)
            permitted = reserved(running) & asked.keys()
            assert set(done) <= permitted  # nothing unrecorded
            unsent += len(permitted - set(done))
            sent += len(set(done) & permitted)
            told = [
                each
                for each in before
                if isinstance(each, Answered) and each.code == "allowed" and each.whole
            ]
            assert len(told) <= sum(done.values())
        running.run()
        async with running.tool(PLAIN, effect) as tool_again:
            after = await asyncio.gather(
                *(running.answer(asked[each.task.id], each.handle) for each in tasks)
            )
            for task, answered in zip(tasks, after, strict=True):
                total = done[task.task.id] + effects(tool_again)[task.task.id]
                assert total <= 1, (task.task.id, answered)
                assert answered.code in ("allowed", "uses_exhausted")
                assert answered.code == "uses_exhausted" or total == 1
        async with running.orchestrator as client:
            await asyncio.gather(*(client.complete(task.task.id) for task in tasks))
        if unsent and sent and number >= 2:
            break
    assert unsent, "no round killed the sidecar between a reservation and its first byte"
    assert sent, "no round killed the sidecar after a first byte"


async def test_a_kill_after_the_first_byte(running: World) -> None:
    """The use stays used, its outcome is told as unknown on the record, and the task lives on."""
    [task] = await start(running, 1, max_uses=1)
    asked = send("POST", "/write", {"task": task.task.id})
    async with running.tool(PLAIN, effect) as tool:
        asking = await running.ask(asked, task.handle)
        await asyncio.wait_for(tool.reached.wait(), SOON)
        running.sidecar.kill()
        assert not (await asyncio.wait_for(asking.whole(), SOON)).whole
        await asyncio.wait_for(tool.over.wait(), SOON)
    running.run()
    settled = [record for record in running.place.audit if record["event"] == "use.settled"]
    assert [record["outcome"] for record in settled] == ["outcome_unknown"]
    async with running.tool(PLAIN, effect) as tool, running.orchestrator as client:
        assert (await running.answer(asked, task.handle)).code == "uses_exhausted"
        assert tool.requests == []
        shown, [used, _] = await client.show_task(task.task.id)
        assert (shown.state, used.used) == ("active", 1)


async def test_a_task_lives_on_and_its_credential_does_not(running: World) -> None:
    """The key died with the process: a new credential is made, and nobody has to start the task again."""
    [task] = await start(running, 1)
    async with running.tool(PLAIN, echo):
        before = json.loads((await running.answer(get(), task.handle)).body)["serial"]
    again(running)
    async with running.tool(PLAIN, echo):
        after = json.loads((await running.answer(get(), task.handle)).body)["serial"]
    assert before != after
    async with running.orchestrator as client:
        await client.complete(task.task.id)
    again(running)
    async with running.tool(PLAIN, echo) as tool:
        assert (await running.answer(get(), task.handle)).code in ("task_ended", "handle_invalid")
        assert tool.requests == []


async def test_a_freeze_outlives_a_kill(running: World) -> None:
    async with running.orchestrator as client:
        await client.freeze("tool", PLAIN)
        again(running)
        with pytest.raises(Exception, match="frozen"):
            await client.start({"purpose": "frozen", "grants": [grant(PLAIN, "read")]})
        await client.unfreeze("tool", PLAIN)
        [task] = await start(running, 1)
        assert task.grants[0].state.live


async def test_policy_dies_with_the_sidecar(running: World) -> None:
    opas = [pid for pid in children(running.sidecar.pid) if "opa" in command(pid).partition(" ")[0]]
    assert len(opas) == 1
    running.sidecar.kill()
    await until(lambda: not Path(f"/proc/{opas[0]}").exists() or _zombie(opas[0]))


def _zombie(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def test_a_second_instance_on_the_same_state(running: World) -> None:
    """Refused in words that say who holds it; the first one goes on."""
    place = running.place
    config = yaml.safe_load((place.directory / "taskgrant.yaml").read_text())
    config |= {
        "runtime_dir": "run-2",
        "control": {"socket": "run-2/control.sock"},
        "audit": {"file": "audit-2.jsonl"},
    }
    other = place.directory / "second.yaml"
    other.write_text(yaml.safe_dump(config))
    second = place.python("-m", "taskgrant.cli.main", "run", str(other))
    wait_for(lambda: second.popen.poll() is not None, "the second instance gives up")
    assert second.popen.returncode not in (0, -signal.SIGKILL)
    assert f"process {running.sidecar.pid} holds it" in second.log()
    assert "Traceback" not in second.log()
    assert not (place.directory / "run-2" / "addresses.json").exists()
    assert running.sidecar.popen.poll() is None


async def test_another_boot_ends_what_an_earlier_one_left(running: World) -> None:
    """The state as a reboot leaves it: it was begun in an epoch that names another boot."""
    [task] = await start(running, 1)
    running.sidecar.kill()
    with closing(sqlite3.connect(running.place.directory / "state" / "authority.db")) as state, state:
        [[epoch]] = state.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchall()
        assert epoch.startswith(BOOT + "/")
        earlier = epoch.replace(BOOT, "00000000-0000-4000-8000-000000000000")
        state.execute("UPDATE meta SET value = ? WHERE key = 'epoch'", (earlier,))
        state.execute("UPDATE tasks SET epoch = ?", (earlier,))
    running.run()
    async with running.tool(PLAIN, echo) as tool, running.orchestrator as client:
        answered = await running.answer(get(), task.handle)
        assert answered.code in ("task_ended", "handle_invalid")
        assert tool.connections == 0
        shown, grants = await client.show_task(task.task.id)
        assert {shown.state.value, *(each.state.value for each in grants)} == {"revoked"}
        [fresh] = await start(running, 1)
        assert (await running.answer(get(), fresh.handle)).code == "allowed"
