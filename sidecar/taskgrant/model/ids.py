"""Identifiers: opaque, unguessable, and safe as one segment of a SPIFFE ID path ([A-Za-z0-9._-])."""

import secrets
from typing import NewType

TaskId = NewType("TaskId", str)
GrantId = NewType("GrantId", str)
CallId = NewType("CallId", str)

# 96 bits: no two meet by chance, and an agent cannot guess another task's.
_ENTROPY_BYTES = 12


def new_task_id() -> TaskId:
    return TaskId("task-" + secrets.token_hex(_ENTROPY_BYTES))


def new_grant_id() -> GrantId:
    return GrantId("grant-" + secrets.token_hex(_ENTROPY_BYTES))


def new_call_id() -> CallId:
    return CallId("call-" + secrets.token_hex(_ENTROPY_BYTES))
