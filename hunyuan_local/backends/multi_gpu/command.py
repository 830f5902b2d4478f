"""One thing that all processes of a group are to do: followed to its end, however each of them comes to it."""

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

# After these the processes are in step, since they all saw the same or the leader told them; after any other
# error they have to be started anew.
_IN_STEP = (
    "ConfigError", "ContentBlockedError", "GenerationCancelledError", "InvalidOutputError", "ModelLoadError",
    "OutputExistsError", "TokenizerMismatchError", "VideoError",
)  # fmt: skip
_GRACE_S = 5.0  # for the others to come to the same end
_SHORT_GRACE_S = 0.5


class Command:
    """What was sent to a group, and what has come of it.

    Attributes:
        answer: the leader's, when it is done.
        failed: the message of each rank that could not do it, in the order in which they came.
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
        """Whether all have come to an end, after which they can be given another order."""
        return not self._waiting and all(message["type"] in _IN_STEP for message in self.failed.values())

    def follow(self, cancel: threading.Event, on_message: Callable[[int, Message], None]) -> None:
        """Return when all have come to an end, or some while after one has failed that the others wait for.

        Args:
            cancel: is passed on; they then stop within a step, together.
            on_message: told the rank and what it says while it works.
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
        """Nothing, if nobody failed.

        Raises:
            HunyuanLocalError: the error that led to the others: one of ours, else that of a process that died, else
                what nobody foresaw; of several such the first.
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
    """What a process said of its failure, or what is known of its death, as an error with a remedy."""
    kind, text, who = message["type"], message["text"], f"rank {rank} of {size}"
    if kind == "ContentBlockedError" and "verdict" in message:
        return ContentBlockedError(text, SafetyVerdict(**message["verdict"]))
    if kind in _IN_STEP:
        error: HunyuanLocalError = getattr(errors, kind)(text)
        return error
    if kind == "GpuMemoryError":
        remedy = (
            "context parallelism does not go on by itself in smaller pieces: use a --profile with more offload, such "
            "as group+tiling, fewer frames or a smaller size"
        )
        return GpuMemoryError(f"{who}: {text}; {remedy}", message["stage"], message["peak_bytes"])
    remedy = (
        "all of them were ended and no file was kept; start it again, with --checkpoint-dir it goes on from the last "
        "saved step; each process needs main memory for a model of its own"
    )
    return RankFailedError(f"{who} {f'failed: unexpected {kind}: {text}' if kind else text}; {remedy}")
