"""The signals by which a system ends this process: SIGTERM, SIGHUP of a closed terminal, and SIGQUIT.

All three do the same, and none leaves a core dump. SIGHUP and SIGQUIT stay ignored where whoever started the process
has them ignored, as ``nohup`` does. Knows nothing about what is ended.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType

Handler = Callable[[int, FrameType | None], object]

_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def ending_signals() -> list[signal.Signals]:
    """Those of the three that are to end this process."""
    return [number for number in _SIGNALS if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN]


class _Ending:
    """A handler, and whether one of its kind has begun the end of the process."""

    def __init__(self, handler: Handler, has_begun: list[bool]):
        self._handler, self.has_begun = handler, has_begun

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.has_begun and number == signal.SIGHUP:
            return
        self.has_begun.append(True)
        self._handler(number, frame)


def on_ending(handler: Handler, *others: signal.Signals) -> Callable[[], None]:
    """Have ``handler`` called at each of the signals, and at ``others``; in another than the main thread do nothing.

    A closed terminal sends SIGHUP twice, by the kernel and by the shell. After another signal it is therefore
    ignored: it must not interrupt the end that is under way.

    Returns:
        Puts back what was there before.
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
    """Ignore what a terminal sends to all of its processes: this one ends with its parent, which sees to the work."""
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
