from dataclasses import replace

from taskgrant.api.report import report
from taskgrant.model.grant import Grant, GrantState
from taskgrant.model.ids import GrantId, TaskId
from taskgrant.model.task import Task, TaskState
from tests.api.support import NOW


def test_granted_against_used() -> None:
    task = Task(TaskId("t"), "spiffe://x/agent", "p", TaskState.COMPLETED, NOW, NOW, "uid:1", b"digest")
    used = Grant(
        GrantId("g1"),
        task.id,
        "mail",
        ("send",),
        (),
        GrantState.EXHAUSTED,
        NOW,
        NOW,
        "uid:1",
        max_uses=2,
        used=2,
    )
    idle = replace(used, id=GrantId("g2"), max_uses=None, used=0, state=GrantState.REVOKED)
    document = report(task, [used, idle])
    assert document["uses"] == 2
    assert document["unused"] == ["g2"]
    assert [(one["used"], one["remaining"]) for one in document["grants"]] == [(2, 0), (0, None)]
