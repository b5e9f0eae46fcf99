"""What cannot be had at the start (an address, a file), told as a fault of the setting that asks for it."""

import contextlib
import os
from collections.abc import Iterator

from taskgrant.errors import ConfigurationError


@contextlib.contextmanager
def asked_by(setting: str, value: object) -> Iterator[None]:
    """Raises ``ConfigurationError`` with one sentence for an OSError inside: ``listen.gateway: 127.0.0.1:80: …``."""
    try:
        yield
    except OSError as fault:
        # An error of the system has a number, and its text may be a library's; one of ours is a sentence as it is.
        reason = str(fault) if fault.errno is None else f"{value}: {os.strerror(fault.errno)}"
        raise ConfigurationError([f"{setting}: {reason}"]) from fault
