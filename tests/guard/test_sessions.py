from hypothesis import given
from hypothesis import strategies as st

from taskgrant.guard.sessions import Sessions


def test_a_session_belongs_to_the_task_that_it_was_handed_out_to() -> None:
    sessions = Sessions(10)
    assert sessions.bind("s1", "t1")
    assert sessions.bind("s1", "t1")
    assert not sessions.bind("s1", "t2")
    assert sessions.owned("s1", "t1")
    assert not sessions.owned("s1", "t2")
    assert not sessions.owned("s2", "t1")


def test_sessions_end_with_their_task_and_one_by_one() -> None:
    sessions = Sessions(10)
    for session, task in (("s1", "t1"), ("s2", "t1"), ("s3", "t2")):
        sessions.bind(session, task)
    sessions.forget("s2")
    sessions.forget("s2")
    assert sessions.end("t1") == ("s1",)
    assert sessions.end("t1") == ()
    assert not sessions.owned("s1", "t1")
    assert sessions.owned("s3", "t2")


def test_beyond_the_bound_the_longest_unused_is_forgotten() -> None:
    sessions = Sessions(2)
    sessions.bind("s1", "t1")
    sessions.bind("s2", "t1")
    sessions.owned("s1", "t1")
    sessions.bind("s3", "t1")
    assert not sessions.owned("s2", "t1")
    assert sessions.owned("s1", "t1")
    assert len(sessions) == 2


OPERATIONS = st.tuples(
    st.sampled_from(["bind", "forget", "end"]), st.sampled_from("abcde"), st.sampled_from("123")
)


@given(st.lists(OPERATIONS, max_size=60))
def test_it_never_grows_beyond_its_bound_and_never_gives_a_session_to_two_tasks(
    operations: list[tuple[str, str, str]],
) -> None:
    sessions = Sessions(3)
    for operation, session, task in operations:
        if operation == "bind":
            sessions.bind(session, task)
        elif operation == "forget":
            sessions.forget(session)
        else:
            sessions.end(task)
        assert len(sessions) <= 3
        for each in "abcde":
            assert sum(sessions.owned(each, owner) for owner in "123") <= 1
    for task in "123":
        sessions.end(task)
    assert len(sessions) == 0
