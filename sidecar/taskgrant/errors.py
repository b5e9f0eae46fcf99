"""The errors that taskgrant raises on purpose. Few classes; what differs is the code and what a person is told."""

from typing import Any


class TaskgrantError(Exception):
    """Base of all of ours. ``str()`` is a sentence for a person: what happened, where, and what to do."""


class Refused(TaskgrantError):
    """Something was asked for and is not done: a code of ``model.codes`` and a reason."""

    def __init__(self, code: str, reason: str, **details: Any) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.details = details


class Severed(TaskgrantError):
    """A call's upstream leg was cut: its grant or task has ended. ``begun``: the tool may have seen some of it."""

    def __init__(self, code: str, reason: str, *, begun: bool) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.begun = begun


class ConfigurationError(TaskgrantError):
    """A file that cannot be used. ``faults`` are all of them at once, each naming file, line and key."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults
