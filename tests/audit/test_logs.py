"""Operational logs: JSON lines without secrets, whichever way a secret got in."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from taskgrant.audit.logs import REDACTED, redact, setup_logging

JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"
PEM = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIB\nAoGCCqGSM49\n-----END EC PRIVATE KEY-----"
SECRETS = [
    JWT,
    JWT.rpartition(".")[0] + ".",
    PEM,
    PEM[:50],
    PEM.replace("EC ", ""),
    "tgh_Zm9vYmFy-_x",
    "Bearer opaque-token-123==",
    "bearer   opaque.token~123",
    "DPoP opaque-token-123",
    "Basic dXNlcjpwYXNzd29yZA==",
]
PLAIN = [
    "a bearer of news",
    "task-0123456789ab",
    "-----BEGIN CERTIFICATE-----\nMIIB",
    "eye",
    "https://a.example/x.y.z",
]


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    setup_logging(stream, "DEBUG")
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


def last(stream: io.StringIO) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(stream.getvalue().splitlines()[-1])
    return line


@pytest.mark.parametrize("secret", SECRETS)
def test_secrets_are_replaced(secret: str) -> None:
    body = secret.split(maxsplit=1)[-1] if " " in secret and "-----" not in secret else secret
    text = redact(f"before {secret} after")
    assert body not in text
    assert REDACTED in text
    assert text.startswith("before ")


@pytest.mark.parametrize("text", PLAIN)
def test_other_text_stays(text: str) -> None:
    assert redact(text) == text


def test_a_line_has_time_level_logger_and_extras(stream: io.StringIO) -> None:
    logging.getLogger("taskgrant.x").warning("hello %s", "you", extra={"task": "task-1", "n": 1, "ok": None})
    line = last(stream)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "WARNING", "logger": "taskgrant.x", "message": "hello you", "task": "task-1", "n": 1, "ok": None,
    }  # fmt: skip


@pytest.mark.parametrize("secret", SECRETS)
def test_no_way_in_lets_a_secret_out(stream: io.StringIO, secret: str) -> None:
    class Odd:
        def __repr__(self) -> str:
            return secret

    log = logging.getLogger("x")
    log.info(secret)
    log.info("%s", secret)
    log.info({"message": secret, "nested": {"deep": [secret]}})
    log.info(
        "extra", extra={"a": secret, "b": [secret], "c": {secret: secret}, "d": Odd(), "e": secret.encode()}
    )
    try:
        raise RuntimeError(secret)
    except RuntimeError:
        log.exception("failed")
    body = secret.split(maxsplit=1)[-1] if " " in secret and "-----" not in secret else secret
    for line in stream.getvalue().splitlines():
        assert json.dumps(body)[1:-1] not in line
        json.loads(line)


def test_the_level_holds_and_set_up_twice_writes_once(stream: io.StringIO) -> None:
    setup_logging(stream, logging.WARNING)
    logging.info("no")
    logging.warning("yes")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["yes"]
