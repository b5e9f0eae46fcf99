"""Operational logs: one JSON object a line, on standard error, without secrets. (What must be kept: ``audit.trail``.)

Redaction is the last thing before a line is encoded: it sees messages, extra fields, stack traces and exceptions alike.
It looks for what a secret of ours or of a tool looks like: the credentials of an ``Authorization`` header, JWTs,
PEM private keys, task handles. It is a net under code that does not log secrets, not a reason to.
"""

import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from pythonjsonlogger.json import JsonFormatter

REDACTED = "[redacted]"

_SECRETS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|\btgh_[A-Za-z0-9_-]+"
    r"|\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*){0,3}"
    r"|(?P<scheme>\b(?i:bearer|dpop|basic)\s+)[A-Za-z0-9._~+/=-]{8,}",
    re.DOTALL,
)


def redact(text: str) -> str:
    """The text with everything that looks like a secret replaced."""
    return _SECRETS.sub(lambda found: (found["scheme"] or "") + REDACTED, text)


class RedactingFormatter(JsonFormatter):
    """``time``, ``level``, ``logger``, ``message``, then the record's extra fields, all redacted."""

    def __init__(self) -> None:
        super().__init__(
            ["levelname", "name", "message"], rename_fields={"levelname": "level", "name": "logger"}
        )

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        at = datetime.fromtimestamp(record.created, UTC)
        log_data["time"] = at.isoformat(timespec="microseconds").replace("+00:00", "Z")
        super().add_fields(log_data, record, message_dict)

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        return {redact(str(name)): _redacted(value) for name, value in log_data.items()}


def setup_logging(stream: TextIO, level: int | str = logging.INFO) -> None:
    """Makes the root logger write redacted JSON lines to ``stream``, and nowhere else. May be called again."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(RedactingFormatter())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)


def _redacted(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {redact(str(name)): _redacted(member) for name, member in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_redacted(member) for member in value]
    return redact(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))
