"""Values for tests of policy."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from taskgrant.model.call import Call, Kind
from taskgrant.model.decision import Ask, Query
from taskgrant.model.grant import Grant, GrantSpec, GrantState
from taskgrant.model.ids import CallId, GrantId, TaskId
from taskgrant.model.schema import canonical
from taskgrant.model.task import Task, TaskState
from taskgrant.model.time import Instant

NOW = Instant(1_770_000_000.0)
AGENT = "spiffe://example.org/agent/researcher"

TASK = Task(
    id=TaskId("task-1"), agent=AGENT, purpose="test", state=TaskState.ACTIVE, created_at=NOW,
    deadline=Instant(NOW + 3600), created_by="uid:1000", handle_digest=b"",
)  # fmt: skip
GRANT = Grant(
    id=GrantId("grant-1"), task=TASK.id, server="mail", tools=("send",),
    schemas=(canonical({"properties": {"to": {"enum": ["a@example.org"]}}, "required": ["to"]}),),
    state=GrantState.ACTIVE, created_at=NOW, expires_at=Instant(NOW + 300), requested_by="uid:1000", max_uses=2,
)  # fmt: skip
CALL = Call(
    id=CallId("call-1"), protocol="mcp", server="mail", action="tools/call", kind=Kind.TOOL, tool="send",
    arguments={"to": "a@example.org"}, version="2025-11-25",
)  # fmt: skip
QUERY = Query(CALL, TASK, (GRANT,), NOW)
SPEC = GrantSpec("mail", ("send",), canonical({"properties": {"to": {"type": "string"}}}), max_uses=5)
ASK = Ask(TASK, (SPEC,), "uid:1000", NOW, AGENT)

BOUNDARY = f"""
taskgrant:
  boundaries:
    "{AGENT}":
      - {{server: mail, tools: [send, read, purge], max_uses: 3}}
      - {{server: files, tools: [read], approval: required, approvers: ["uid:7"]}}
  profiles:
    mail/send: {{scopes: [mail.send], max_rate_per_minute: 30, mask: [/to]}}
    mail/read: {{ask: true}}
"""


def query(call: Mapping[str, Any] | None = None, grant: Mapping[str, Any] | None = None) -> Query:
    """The query that is allowed, with other members of the call or the grant."""
    return replace(QUERY, call=replace(CALL, **(call or {})), grants=(replace(GRANT, **(grant or {})),))


def policy(folder: Path, **files: str) -> Path:
    """A directory of an author: `deny="…"` becomes `deny.rego`; the boundary is in it too."""
    folder.mkdir(exist_ok=True)
    (folder / "data.yaml").write_text(BOUNDARY)
    for name, text in files.items():
        (folder / f"{name}.rego").write_text(text)
    return folder
