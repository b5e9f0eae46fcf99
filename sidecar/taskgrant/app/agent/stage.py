"""Root in the new network and mount namespaces: ``python -m taskgrant.app.agent.stage PLAN``.

Rules first, then the network, then the sidecar, and the agent only when the sidecar is ready: there is no moment at
which the agent runs and could get out. A sidecar that ends is started again; until it is ready the agent has no way
out. Everything that is started here is killed by the kernel when this process ends, however it does.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from taskgrant.app.agent import network
from taskgrant.app.agent.plan import Plan, environment, unprivileged
from taskgrant.app.agent.reaper import Reaper
from taskgrant.errors import TaskgrantError
from taskgrant.wire.redirect import nft

#: What ``run-agent`` ends with when it is not the agent's command that failed.
FAILED = 125
#: ``-P``: the directory that we happen to be in is no place to import from, least of all as root.
_PYTHON = (sys.executable, "-P", "-m")
_READY_SECONDS = 60.0
_POLL_SECONDS = 0.02
_PAUSE_SECONDS = 0.5
_STOP_SECONDS = 10.0


class Stage:
    def __init__(self, plan: Plan, reaper: Reaper) -> None:
        self._plan = plan
        self._reaper = reaper
        self._ready = Path(plan.ready_file)
        self._sidecar: int | None = None

    def run(self) -> int:
        """The agent's exit code. Raises ``TaskgrantError`` when it never came to run."""
        os.set_inheritable(self._plan.namespace, False)
        nft.apply(self._plan.ruleset)
        network.connect(self._plan.uplink, self._plan.namespace)
        os.close(self._plan.namespace)
        if self._plan.ca_dir is not None:
            self._keep_in_memory(self._plan.ca_dir)
        self._start_sidecar()
        interrupted = self._wait_until_ready()
        code = 128 + interrupted if interrupted is not None else self._watch()
        self._stop_sidecar()
        return code

    def _keep_in_memory(self, ca_dir: str) -> None:
        """The CA's key is the sidecar's alone, outlives it, so that the agent's trust does, and ends with us."""
        owner = self._plan.sidecar
        Path(ca_dir).mkdir(parents=True, exist_ok=True)
        options = f"mode=0700,uid={owner.uid},gid={owner.gid},size=1m,nosuid,nodev,noexec"
        command = ["mount", "-t", "tmpfs", "-o", options, "none", ca_dir]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise TaskgrantError(f"{ca_dir} cannot be mounted on: {done.stderr.strip()}")

    def _wait_until_ready(self) -> int | None:
        """A signal that came meanwhile."""
        deadline = time.monotonic() + _READY_SECONDS
        while not self._ready.exists():
            signals, ended, _ = self._reaper.wait(_POLL_SECONDS)
            if signals:
                return signals[0]
            if self._sidecar in ended:
                raise TaskgrantError(f"the sidecar ended with {ended[self._sidecar]} before it was ready")
            if time.monotonic() > deadline:
                raise TaskgrantError(f"the sidecar was not ready within {_READY_SECONDS:g} seconds")
        return None

    def _watch(self) -> int:
        control, descriptor = os.pipe2(os.O_CLOEXEC)
        agent = self._start_agent(control)
        os.close(control)
        restart: float | None = None
        while True:
            pause = None if restart is None else max(0.0, restart - time.monotonic())
            signals, ended, _ = self._reaper.wait(pause)
            if agent in ended:
                return ended[agent]
            for number in signals:
                with suppress(BrokenPipeError):
                    os.write(descriptor, bytes([number]))
            if self._sidecar in ended:
                _say(f"the sidecar ended with {ended[self._sidecar]}; it is started again")
                self._sidecar, restart = None, time.monotonic() + _PAUSE_SECONDS
            if restart is not None and time.monotonic() >= restart:
                self._start_sidecar()
                restart = None

    def _start_sidecar(self) -> None:
        self._ready.unlink(missing_ok=True)
        account = self._plan.sidecar
        command = unprivileged(account, [*_PYTHON, "taskgrant.cli.main", "run", self._plan.config])
        actions: list[tuple[int, int, str, int, int]] = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
        if self._plan.sidecar_log is not None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            actions += [(os.POSIX_SPAWN_OPEN, out, self._plan.sidecar_log, flags, 0o600) for out in (1, 2)]
        env = {**os.environ, "HOME": account.home, "USER": account.name, "LOGNAME": account.name}
        self._sidecar = os.posix_spawnp(command[0], command, env, file_actions=actions)

    def _start_agent(self, control: int) -> int:
        plan = self._plan
        os.set_inheritable(control, True)
        apart = [
            "--mount",
            "--pid",
            "--ipc",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--propagation=private",
        ]
        init = [*_PYTHON, "taskgrant.app.agent.init", plan.resolver_file, str(control)]
        command = [
            "setpriv",
            "--pdeathsig=KILL",
            "unshare",
            *apart,
            *init,
            *unprivileged(plan.agent, plan.command),
        ]
        return os.posix_spawnp(command[0], command, {**environment(plan.agent, os.environ), **plan.trust})

    def _stop_sidecar(self) -> None:
        if self._sidecar is None:
            return
        with suppress(ProcessLookupError):
            os.kill(self._sidecar, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        while time.monotonic() < deadline:
            _, ended, _ = self._reaper.wait(max(0.0, deadline - time.monotonic()))
            if self._sidecar in ended:
                return


def _say(sentence: str) -> None:
    sys.stderr.write(f"taskgrant: {sentence}\n")
    sys.stderr.flush()


def main(plan: str) -> int:
    try:
        with Reaper() as reaper:
            return Stage(Plan.decode(plan), reaper).run()
    except TaskgrantError as failed:
        _say(str(failed))
        return FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
