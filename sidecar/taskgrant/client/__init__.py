"""The Python client of the control API, for orchestrators and for what enforces beside the authority.

::

    async with TaskgrantClient(socket).task(purpose="send the summary", grants=[…]) as task:
        subprocess.run(agent, env={**os.environ, **task.env()})

``SyncTaskgrantClient`` is the same without asyncio. What is refused raises ``errors.Refused`` with its code.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taskgrant.client.asynchronous import RunningTask, TaskgrantClient
    from taskgrant.client.synchronous import SyncRunningTask, SyncTaskgrantClient

__all__ = ["RunningTask", "SyncRunningTask", "SyncTaskgrantClient", "TaskgrantClient"]

_HOMES = {
    "RunningTask": "taskgrant.client.asynchronous",
    "SyncRunningTask": "taskgrant.client.synchronous",
    "SyncTaskgrantClient": "taskgrant.client.synchronous",
    "TaskgrantClient": "taskgrant.client.asynchronous",
}


def __getattr__(name: str) -> Any:
    """Imports on first use: the synchronous client must not cost a command line the import of aiohttp."""
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
