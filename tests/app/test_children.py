"""What is started can be taken down, whenever somebody interrupts."""

import signal

import pytest

from taskgrant.app.children import uninterrupted


def test_what_is_interrupted_while_it_is_made_is_made_all_the_same() -> None:
    made: list[str] = []
    before = signal.getsignal(signal.SIGINT)

    def make() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            made.append("a folder")

    with pytest.raises(KeyboardInterrupt):
        make()
    assert made == ["a folder"]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_fault_in_the_block_comes_first() -> None:
    before = signal.getsignal(signal.SIGINT)

    def fail() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        fail()
    assert signal.getsignal(signal.SIGINT) is before


def test_without_an_interruption_nothing_is_raised() -> None:
    with uninterrupted():
        made = True
    assert made
