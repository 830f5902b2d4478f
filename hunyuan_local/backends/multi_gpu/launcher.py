"""The processes that make a video together, seen from the one that starts them.

Each is a :class:`hunyuan_local.supervision.Child`, and the messages go over its socket. It ends as soon as that is
closed; so whoever dies first, nobody is left behind. Knows nothing about videos.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from ...config.places import temporary_folder
from ...errors import GenerationCancelledError, RankFailedError
from ...supervision import Child, exit_in_words
from .messages import Message, MessageSocket

_PROGRAM = "hunyuan_local.backends.multi_gpu.rank"
_LEAVING_S = 20.0
_ENDING_S = 5.0  # from the end of the connection to that of the process


class RankGroup:
    """``size`` processes, which run :mod:`hunyuan_local.backends.multi_gpu.rank`.

    Args:
        size: how many.
        device: ``cpu``, or ``cuda`` with a GPU for each.
        is_cancelled: asked while they start.

    Attributes:
        pids: the number of each process by its rank.
        folder: theirs, deleted with the group.

    Raises:
        GenerationCancelledError: cancelled while they started.
        RankFailedError: they cannot be started.
    """

    def __init__(self, size: int, device: str, is_cancelled: Callable[[], bool]):
        self.size, self.device = size, device
        self._own = temporary_folder("hunyuan-local-ranks-")
        self.folder = self._own.path
        self.pids: dict[int, int] = {}
        self._children: list[Child] = []
        self._connections: list[MessageSocket] = []
        self._messages: queue.SimpleQueue[tuple[int, Message | None]] = queue.SimpleQueue()
        try:
            for rank in range(size):
                self._start(rank)
            self._meet(is_cancelled)
        except BaseException:
            self.kill()
            raise

    def send(self, kind: str, **content: Any) -> None:
        """Send a message to all; :meth:`next_message` reports those that are gone."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.send(kind, **content)

    def next_message(self, timeout_s: float) -> tuple[int, Message | None] | None:
        """The next message and the rank it is from, None in its place if that one is gone; None after the time."""
        try:
            return self._messages.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def is_whole(self) -> bool:
        """Whether all are there, while none has anything to say; what was sent before is dropped."""
        while (found := self.next_message(0)) is not None:
            if found[1] is None:
                return False
        return True

    def death_of(self, rank: int) -> Message:
        """The error of a process that is gone without a word: how it ended, and the last line of its log."""
        child = self._children[rank]
        child.wait(_ENDING_S)
        text = exit_in_words(child.exit_code)
        # What was logged before a SIGKILL has nothing to do with it.
        words = "" if child.exit_code == -signal.SIGKILL else child.last_words()
        return {"kind": "error", "type": "", "text": f"{text}: {words}" if words else text}

    def close(self) -> None:
        """Let all finish what they hold, such as files of weights on disk; at once where one does not answer."""
        self.send("leave")
        deadline = time.monotonic() + _LEAVING_S
        for child in self._children:
            child.wait(max(0.0, deadline - time.monotonic()))
        self.kill()

    def kill(self) -> None:
        """End all of them at once."""
        for child, connection in zip(self._children, self._connections, strict=True):
            child.kill()
            connection.close()
        self._own.close()

    def _start(self, rank: int) -> None:
        environment = {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(self.size), "LOCAL_WORLD_SIZE": str(self.size)
        }  # fmt: skip
        wanted = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // self.size))}
        if sys.platform == "linux":  # nothing of it is for other machines
            wanted |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
        environment |= {name: value for name, value in wanted.items() if name not in os.environ}
        if self.device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        child = Child(_PROGRAM, str(self.folder), environment=environment, log=self.folder / f"rank{rank}.log")
        connection = MessageSocket(child.connection)
        self._children.append(child)
        self._connections.append(connection)
        self.pids[rank] = child.pid

        def read() -> None:
            for message in connection.receive():
                self._messages.put((rank, message))
            self._messages.put((rank, None))

        threading.Thread(target=read, name=f"rank-{rank}", daemon=True).start()

    def _meet(self, is_cancelled: Callable[[], bool]) -> None:
        """Wait until each has said that it is there."""
        missing = self.size
        while missing:
            if is_cancelled():
                raise GenerationCancelledError("cancelled while the processes started; no file was kept")
            found = self.next_message(0.1)
            if found is None:
                continue
            rank, message = found
            if message is None:
                raise RankFailedError(
                    f"context_parallel={self.size}: its processes could not be started: rank {rank} "
                    f"{self.death_of(rank)['text']}; try without --context-parallel"
                )
            missing -= 1
