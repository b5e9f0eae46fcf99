"""Conversations belong to one task, server and client session, are bounded, and end with the task."""

import pytest

from taskgrant.errors import Refused
from taskgrant.model.ids import TaskId
from taskgrant.proxy.conversations import Conversations

A, B = TaskId("task-a"), TaskId("task-b")


def test_one_per_task_server_and_session():
    conversations = Conversations()
    first = conversations.open(A, "mail", "s1")
    assert conversations.open(A, "mail", "s1") is first
    assert conversations.find(A, "mail", "s1") is first
    others = [
        conversations.open(B, "mail", "s1"),
        conversations.open(A, "files", "s1"),
        conversations.open(A, "mail", None),
    ]
    assert first not in others
    assert len(conversations) == 4


def test_a_task_cannot_open_without_end():
    conversations = Conversations()
    for number in range(64):
        conversations.open(A, "mail", str(number))
    with pytest.raises(Refused) as refused:
        conversations.open(A, "mail", "one more")
    assert refused.value.code == "overloaded"
    conversations.open(B, "mail", "another task's")
    conversations.end(A, "mail", "0")
    conversations.open(A, "mail", "one more")


def test_forgotten_with_its_task():
    conversations = Conversations()
    conversations.open(A, "mail", "s")
    conversations.forget(A)
    conversations.forget(A)
    assert conversations.find(A, "mail", "s") is None
    assert len(conversations) == 0


def test_requests_of_the_server_are_bounded():
    conversation = Conversations().open(A, "mail", None)
    for number in range(1000):
        conversation.ask(number)
    assert len(conversation.asked) == 64
    assert 999 in conversation.asked
    assert 0 not in conversation.asked


def test_a_lost_session_is_opened_anew():
    conversation = Conversations().open(A, "mail", None)
    conversation.ready, conversation.session = True, "upstream"
    conversation.lost()
    assert not conversation.ready
    assert conversation.session is None


def test_what_clients_say_of_themselves_is_kept_for_the_latest_sessions_only() -> None:
    conversations = Conversations()
    assert conversations.capabilities(None) == {}
    for number in range(5000):
        conversations.introduce(str(number), {"roots": {}})
    assert conversations.capabilities("0") == {}
    assert conversations.capabilities("4999") == {"roots": {}}
