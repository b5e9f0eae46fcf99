"""OPA as a child process: started, watched, and started again when it ends.

::

    STARTING ──answers each of our questions──▶ READY ──ends──▶ DOWN ──back-off──▶ STARTING
                                                                    async with ends ──▶ STOPPED

It listens on a Unix socket in a directory that only we can enter, serves our questions and nothing else
(``--authorization=basic`` and ``rego/taskgrant/system``), sees nothing of our environment, has a memory limit of its
own and dies with us (``launcher``). What it prints goes to our log; its last words, when it ends unasked, as an error.
"""

import asyncio
import contextlib
import json
import logging
import os
import random
import signal
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

from taskgrant.errors import ConfigurationError
from taskgrant.policy import launcher
from taskgrant.policy.client import OpaFault, OpaUnavailable

_log = logging.getLogger(__name__)

_MIB = 1024 * 1024
_START_SECONDS = 15.0
_PROBE_SECONDS = 0.01
_STOP_SECONDS = 1.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_STEADY_SECONDS = 30.0  # up for so long: the next end is a first one again
_LAST_WORDS = 20  # lines
_LONGEST_LINE = 64 * 1024
_SCHEMAS = (
    512  # compiled schemas (and patterns) that OPA keeps; without a bound it keeps all that it ever saw
)


class State(StrEnum):
    STARTING = "starting"
    READY = "ready"
    DOWN = "down"
    STOPPED = "stopped"


class OpaProcess:
    """One OPA, kept running. ``async with`` returns when it is ready for the first time.

    ``folder`` holds the snapshot's ``directories`` (names relative to it) and must be private. ``probe`` raises as long
    as OPA does not answer our questions. ``on_state`` is called in the event loop's thread with each new state; it must
    not raise.
    """

    def __init__(
        self,
        opa: str,
        folder: Path,
        directories: tuple[str, ...],
        memory_mib: int,
        probe: Callable[[], Awaitable[None]],
        on_state: Callable[[State], None] = lambda _: None,
    ) -> None:
        self._opa = opa
        self._folder = folder
        self._directories = directories
        self._memory = memory_mib
        self._probe = probe
        self._on_state = on_state
        self._process: asyncio.subprocess.Process | None = None
        self._words: deque[str] = deque(maxlen=_LAST_WORDS)
        self._ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._listening: asyncio.Task[int]
        self.state = State.STARTING

    @property
    def socket(self) -> Path:
        return self._folder / "opa.sock"

    @property
    def alive(self) -> bool:
        """True while OPA answers, as far as is known."""
        return self.state is State.READY

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def wait_ready(self) -> None:
        await self._ready.wait()

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._end()
            raise
        self._task = asyncio.create_task(self._watch(), name="opa")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._end()
        self._enter(State.STOPPED)

    def _enter(self, state: State) -> None:
        self.state = state
        if state is State.READY:
            self._ready.set()
        else:
            self._ready.clear()
        self._on_state(state)

    async def _start(self) -> None:
        """Raises ``ConfigurationError`` with OPA's own words when it ends, or does not answer in time."""
        self._enter(State.STARTING)
        self._words.clear()
        self.socket.unlink(missing_ok=True)
        self._process = process = await asyncio.create_subprocess_exec(
            *self._command(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=_LONGEST_LINE,
            cwd=self._folder,
            env=self._environment(),
            start_new_session=True,  # Ctrl-C is for us to handle
        )
        self._listening = asyncio.create_task(self._listen(process, process.stdout), name="opa.log")
        answering = asyncio.create_task(self._until_it_answers(), name="opa.probe")
        try:
            async with asyncio.timeout(_START_SECONDS):
                await asyncio.wait((answering, self._listening), return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            self._words.append(f"it did not answer within {_START_SECONDS:g} s")
        finally:
            answering.cancel()
            await asyncio.wait((answering,))
        if answering.cancelled() or answering.exception() is not None or process.returncode is not None:
            words = self._words or ["it says nothing"]
            raise ConfigurationError([f"OPA does not start: {line}" for line in words])
        self._enter(State.READY)

    def _command(self) -> list[str]:
        return [
            sys.executable, "-I", "-S", launcher.__file__, str(os.getpid()), str(self._memory * _MIB),
            self._opa, "run", "--server",
            "--addr", f"unix://{self.socket}", "--unix-socket-perm", "600",
            "--authorization", "basic",
            "--skip-version-check",
            "--log-level", "error", "--log-format", "json",
            "--shutdown-grace-period", "1",
            "--set", f"caching.inter_query_builtin_value_cache.max_num_entries={_SCHEMAS}",
            *self._directories,
        ]  # fmt: skip

    def _environment(self) -> dict[str, str]:
        return {
            # Collect less often, but work harder before the limit is reached.
            "GOGC": "400",
            "GOMEMLIMIT": f"{self._memory * 3 // 4}MiB",
            # An answer takes a fifth less processor time than with two, and questions still share it fairly.
            "GOMAXPROCS": "1",
            "HOME": str(self._folder),
        }

    async def _until_it_answers(self) -> None:
        while True:
            try:
                return await self._probe()
            except OpaUnavailable:
                await asyncio.sleep(_PROBE_SECONDS)
            except OpaFault as fault:
                self._words.append(str(fault))
                raise

    async def _listen(self, process: asyncio.subprocess.Process, stream: asyncio.StreamReader | None) -> int:
        """Forwards what OPA prints, until it ends; its exit code."""
        dying = False
        while stream is not None:
            try:
                line = await stream.readline()
            except ValueError:  # longer than the limit: asyncio has dropped it
                continue
            if not line:
                break
            text = _message(line.decode(errors="replace").rstrip())
            if text.startswith(("fatal error:", "panic:")):
                # Go tells first what went wrong, then a stack for every goroutine.
                self._words.clear()
                dying = True
            if text and not (dying and len(self._words) == _LAST_WORDS):
                self._words.append(text)
                _log.info("opa: %s", text)
        return await process.wait()

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE
        while True:
            began = loop.time()
            code = await self._listening
            self._enter(State.DOWN)
            words = " | ".join(self._words) or "none"
            _log.error("OPA has ended, %s; its last words: %s", _how(code), words)
            if loop.time() - began > _STEADY_SECONDS:
                pause = _FIRST_PAUSE
            while not self._ready.is_set():
                # Jitter, so that sidecars whose OPAs ended together do not all start one at the same moment.
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
                pause = min(pause * 2, _LONGEST_PAUSE)
                try:
                    await self._start()
                except (ConfigurationError, OSError) as error:
                    await self._end()
                    self._enter(State.DOWN)
                    _log.error("%s", error)

    async def _end(self) -> None:
        process = self._process
        if process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError, TimeoutError):
                    process.send_signal(number)
                    async with asyncio.timeout(_STOP_SECONDS):
                        await process.wait()
        self._listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._listening


def _message(line: str) -> str:
    """What OPA says in one line of its log, without what we know already."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    if not isinstance(entry, dict) or "uid or gid 0" in str(entry.get("msg")):
        return ""
    return ": ".join(str(entry[name]) for name in ("msg", "err") if entry.get(name))


def _how(code: int) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"with exit code {code}"
