"""Model values survive being documents, whatever they hold; and a document that is none says what is wrong with it."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrant.model import documents
from taskgrant.model.credential import Enrolled, Issued
from taskgrant.model.decoding import decode
from taskgrant.model.event import Cursor, Ended, Event, EventKind, Scope, ScopeKind
from taskgrant.model.grant import Grant, GrantSpec, GrantState
from taskgrant.model.ids import GrantId, TaskId
from taskgrant.model.task import Started, Task, TaskSpec, TaskState
from taskgrant.model.time import Instant

texts = st.text(max_size=10)
names = st.text(min_size=1, max_size=10)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
objects = st.dictionaries(texts, plain, max_size=3)
seconds = st.floats(0.001, 1e6)
instants = st.integers(0, 4_000_000_000_000).map(lambda milliseconds: Instant(milliseconds / 1000))
tuples = st.lists(names, max_size=3).map(tuple)
pem = st.from_regex(r"\A[A-Za-z0-9+/=\n-]{0,20}\Z").map(lambda text: text.encode())

grant_specs = st.builds(
    GrantSpec,
    server=names,
    tools=tuples,
    arguments=st.none() | objects,
    max_uses=st.none() | st.integers(1, 99),
    expires_in=st.none() | seconds,
    idle_timeout=st.none() | seconds,
    reason=texts,
)
task_specs = st.builds(
    TaskSpec,
    purpose=names,
    grants=st.lists(grant_specs, max_size=2).map(tuple),
    type=texts,
    params=objects,
    on_behalf_of=texts,
    session=texts,
    expires_in=st.none() | seconds,
    idle_timeout=st.none() | seconds,
    uid=st.none() | st.integers(0, 2**32 - 1),
)
tasks = st.builds(
    Task,
    id=names.map(TaskId),
    agent=texts,
    purpose=texts,
    state=st.sampled_from(TaskState),
    created_at=instants,
    deadline=instants,
    created_by=texts,
    handle_digest=st.just(b""),
    type=texts,
    params=objects,
    on_behalf_of=texts,
    session=texts,
    uid=st.none() | st.integers(0, 99),
    idle_timeout=st.none() | seconds,
    last_active_at=st.none() | instants,
    ended_at=st.none() | instants,
    ended_by=texts,
)
grants = st.builds(
    Grant,
    id=names.map(GrantId),
    task=names.map(TaskId),
    server=texts,
    tools=tuples,
    schemas=st.lists(objects, max_size=2).map(tuple),
    state=st.sampled_from(GrantState),
    created_at=instants,
    expires_at=instants,
    requested_by=texts,
    max_uses=st.none() | st.integers(1, 99),
    idle_timeout=st.none() | seconds,
    reason=texts,
    used=st.integers(0, 9),
    in_flight=st.integers(0, 9),
    last_used_at=st.none() | instants,
    ended_at=st.none() | instants,
    ended_by=texts,
    notes=tuples,
    approvers=tuples,
    activated_at=st.none() | instants,
)
issued = st.builds(
    Issued,
    task=names.map(TaskId),
    audience=names,
    certificate=pem,
    token=names,
    bundle=pem,
    serial=names,
    jti=names,
    grants=tuples,
    not_after=instants,
)
VALUES: dict[str, tuple[st.SearchStrategy[Any], Callable[..., Any], Callable[..., Any]]] = {
    "grant_spec": (grant_specs, documents.grant_spec, documents.read_grant_spec),
    "task_spec": (task_specs, documents.task_spec, documents.read_task_spec),
    "task": (tasks, documents.task, documents.read_task),
    "grant": (grants, documents.grant, documents.read_grant),
    "started": (
        st.builds(Started, tasks, st.lists(grants, max_size=2).map(tuple), st.none() | names),
        documents.started,
        documents.read_started,
    ),
    "ended": (
        st.builds(Ended, instants, st.none() | instants, tuples, tuples, tuples, tuples),
        documents.ended,
        documents.read_ended,
    ),
    "event": (
        st.builds(
            Event, st.builds(Cursor, names, st.integers(0, 9)), st.sampled_from(EventKind), instants, objects
        ),
        documents.event,
        documents.read_event,
    ),
    "issued": (issued, documents.issued, documents.read_issued),
    "enrolled": (
        st.builds(Enrolled, names, pem, pem, objects, instants),
        documents.enrolled,
        documents.read_enrolled,
    ),
}


@pytest.mark.parametrize("kind", list(VALUES))
@given(data=st.data())
def test_a_value_is_the_same_after_it_was_a_document(kind: str, data: st.DataObject) -> None:
    values, write, read = VALUES[kind]
    value = data.draw(values)
    assert read(decode(json.dumps(write(value)))) == value


TASK = Task(TaskId("t"), "a", "p", TaskState.ACTIVE, Instant(0.0), Instant(1.0), "uid:1", b"secret digest")


def test_the_handle_s_digest_stays_inside() -> None:
    assert "digest" not in json.dumps(documents.task(TASK))
    assert documents.read_task(documents.task(TASK)) == replace(TASK, handle_digest=b"")


@pytest.mark.parametrize(
    "change",
    [
        {"id": None},
        {"id": 7},
        {"uid": True},
        {"uid": "7"},
        {"state": "of tomorrow"},
        {"deadline": "yesterday"},
        {"deadline": "2026-01-01T00:00:00"},
        {"params": []},
        {"idle_timeout": "5"},
    ],
)
def test_a_document_that_does_not_fit_is_a_value_error(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        documents.read_task({**documents.task(TASK), **change})


def test_lists_hold_what_they_should() -> None:
    with pytest.raises(ValueError, match="'tools' is no list of strings"):
        documents.read_grant_spec({"server": "s", "tools": ["a", 1]})
    with pytest.raises(ValueError, match="'tasks' is no list of objects"):
        documents.read_tasks({"tasks": ["t"]})


def test_members_of_a_newer_authority_are_passed_over() -> None:
    assert documents.read_task({**documents.task(TASK), "of_tomorrow": 1}).id == "t"


def test_scopes_and_requests() -> None:
    assert documents.scope(Scope(ScopeKind.TASK, "t")) == {"task": "t"}
    assert documents.scope(Scope(ScopeKind.ALL)) == {"all": True}
    assert documents.read_csr(documents.csr(b"\x30\x00")) == b"\x30\x00"
    for text in ("no base64!", "MAA", "MAA=\n"):
        with pytest.raises(ValueError, match="not base64"):
            documents.read_csr(text)
