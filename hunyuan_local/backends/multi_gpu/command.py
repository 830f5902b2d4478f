"""One command to all ranks, tracked until every rank has answered, failed or died."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

from ... import errors
from ...errors import ContentBlockedError, GpuMemoryError, HunyuanLocalError, RankFailedError
from ...schema import SafetyVerdict
from .launcher import RankGroup
from .messages import Message

# After these errors the ranks are still in step: all of them hit the same error, or the leader shared it. After any
# other error they must be restarted.
_IN_STEP = (
    "ConfigError", "ContentBlockedError", "GenerationCancelledError", "InvalidOutputError", "ModelLoadError",
    "OutputExistsError", "TokenizerMismatchError", "VideoError",
)  # fmt: skip
_GRACE_S = 5.0  # for the other ranks to report the same error
_SHORT_GRACE_S = 0.5  # after an error that the other ranks do not share


class Command:
    """A command sent to a group, and the answers so far.

    Attributes:
        answer: the leader's result, once it is done.
        failed: the error message of each failed rank, in order of arrival.
    """

    def __init__(self, group: RankGroup, kind: str, **content: Any):
        self._group = group
        self._waiting = set(range(group.size))
        self._latest = math.inf
        self.answer: dict[str, Any] | None = None
        self.failed: dict[int, Message] = {}
        group.send(kind, **content)

    @property
    def left_in_step(self) -> bool:
        """Whether all ranks have finished in step, so that they can run another command."""
        return not self._waiting and all(message["type"] in _IN_STEP for message in self.failed.values())

    def follow(self, cancel: threading.Event, on_message: Callable[[int, Message], None]) -> None:
        """Wait until all ranks have finished, or until a grace period after the first failure ends.

        Args:
            cancel: passed on to the ranks, which then stop together within one step.
            on_message: called with the rank and each message that it sends while it works.
        """
        cancelled = False
        while self._waiting and time.monotonic() < self._latest:
            if cancel.is_set() and not cancelled:
                cancelled = True
                self._group.send("cancel")
            found = self._group.next_message(0.1)
            if found is None:
                continue
            rank, message = found
            if message is None:
                message = self._group.death_of(rank)
            if message["kind"] in ("error", "done"):
                self._end(rank, message)
            else:
                on_message(rank, message)

    def raise_failure(self) -> None:
        """Raise the error that caused the failure; return if no rank failed.

        Raises:
            HunyuanLocalError: the most likely root cause: a known error, else a process death, else an unexpected
                error; the first to arrive if there are several of one kind.
        """
        if not self.failed:
            return

        def order(rank: int) -> tuple[bool, bool]:
            kind = self.failed[rank]["type"]
            return kind != "GpuMemoryError" and kind not in _IN_STEP, kind != ""

        rank = min(self.failed, key=order)
        raise as_error(rank, self._group.size, self.failed[rank])

    def _end(self, rank: int, message: Message) -> None:
        self._waiting.discard(rank)
        if message["kind"] == "error":
            self.failed[rank] = message
            grace_s = _GRACE_S if message["type"] in _IN_STEP else _SHORT_GRACE_S
            self._latest = min(self._latest, time.monotonic() + grace_s)
        elif rank == 0:
            self.answer = message["result"]


def as_error(rank: int, size: int, message: Message) -> HunyuanLocalError:
    """The error for a failed or dead rank, with a remedy."""
    kind, text, who = message["type"], message["text"], f"rank {rank} of {size}"
    if kind == "ContentBlockedError" and "verdict" in message:
        return ContentBlockedError(text, SafetyVerdict(**message["verdict"]))
    if kind in _IN_STEP:
        error: HunyuanLocalError = getattr(errors, kind)(text)
        return error
    if kind == "GpuMemoryError":
        remedy = (
            "context parallelism has no out-of-memory fallback: use a --profile with more offload, such as "
            "group+tiling, fewer frames or a smaller size"
        )
        return GpuMemoryError(f"{who}: {text}; {remedy}", message["stage"], message["peak_bytes"])
    remedy = (
        "all ranks were stopped and no file was kept; run the command again: with --checkpoint-dir it resumes from the "
        "last saved step; each rank needs enough main memory for its own copy of the model"
    )
    return RankFailedError(f"{who} {f'failed: unexpected {kind}: {text}' if kind else text}; {remedy}")
