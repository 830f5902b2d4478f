"""Handling of the signals that end this process: SIGTERM, SIGHUP (closed terminal) and SIGQUIT.

All three have the same effect, without a core dump. SIGHUP and SIGQUIT stay ignored if the parent process ignores
them, as ``nohup`` does.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType

Handler = Callable[[int, FrameType | None], object]

_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def ending_signals() -> list[signal.Signals]:
    """The signals that end this process."""
    return [number for number in _SIGNALS if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN]


class _Ending:
    """A signal handler that knows whether shutdown has already started."""

    def __init__(self, handler: Handler, has_begun: list[bool]):
        self._handler, self.has_begun = handler, has_begun

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.has_begun and number == signal.SIGHUP:
            return
        self.has_begun.append(True)
        self._handler(number, frame)


def on_ending(handler: Handler, *others: signal.Signals) -> Callable[[], None]:
    """Install ``handler`` for these signals and for ``others``; does nothing outside the main thread.

    When a terminal closes, SIGHUP arrives twice: from the kernel and from the shell. SIGHUP after another signal is
    therefore ignored, so that it does not interrupt a running shutdown.

    Returns:
        A function that restores the previous handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    outer = signal.getsignal(signal.SIGTERM)
    ending = _Ending(handler, outer.has_begun if isinstance(outer, _Ending) else [])
    before = {number: signal.signal(number, ending) for number in (*ending_signals(), *others)}

    def put_back() -> None:
        for number, earlier in before.items():
            signal.signal(number, earlier)

    return put_back


def leave_to_parent() -> None:
    """Ignore signals that a terminal sends to all its processes; the parent handles them and ends this process."""
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
