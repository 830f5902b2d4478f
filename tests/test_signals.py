"""Which signals end the process, and that a second signal does not interrupt the cleanup."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from hunyuan_local.signals import ending_signals, leave_to_parent, on_ending

NUMBERS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Use the handlers of a new process, and restore the earlier ones afterwards."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in NUMBERS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(*numbers: signal.Signals) -> list[int]:
    """The signals that a handler receives."""
    reported: list[int] = []
    on_ending(lambda number, frame: reported.append(number))
    for number in numbers:
        os.kill(os.getpid(), number)
    return reported


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_each_of_them_ends_the_process(number: signal.Signals) -> None:
    assert send(number) == [number]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT])
def test_what_was_ignored_stays_ignored(number: signal.Signals) -> None:
    """Ignore SIGHUP, as nohup does."""
    signal.signal(number, signal.SIG_IGN)
    assert number not in ending_signals()
    assert send(number) == []


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGHUP])
def test_a_second_hangup_does_not_interrupt_the_end(first: signal.Signals) -> None:
    """The kernel sends one and the shell another; systemd sends it after SIGTERM."""
    assert send(first, signal.SIGHUP) == [first]


def test_a_second_sigterm_is_reported_again() -> None:
    assert send(signal.SIGTERM, signal.SIGTERM) == [signal.SIGTERM] * 2


def test_a_hangup_after_the_end_has_begun_elsewhere_is_nothing_new() -> None:
    outer: list[int] = []
    on_ending(lambda number, frame: outer.append(number))
    put_back = on_ending(lambda number, frame: None)
    os.kill(os.getpid(), signal.SIGTERM)
    put_back()
    os.kill(os.getpid(), signal.SIGHUP)
    assert outer == []


def test_a_child_leaves_the_signals_of_a_terminal_to_its_parent() -> None:
    leave_to_parent()
    assert [signal.getsignal(number) for number in NUMBERS[1:]] == [signal.SIG_IGN] * 3
