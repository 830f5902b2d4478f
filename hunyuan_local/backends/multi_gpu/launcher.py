"""Starts, watches and stops the rank processes.

Each rank is a :class:`hunyuan_local.supervision.Child` that exchanges messages over its socket and exits when the
socket closes, so no rank outlives its parent. This module does not depend on video generation.
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
_LEAVING_S = 20.0  # for all ranks to exit after "leave"
_ENDING_S = 5.0  # for a process to exit after its connection closed


class RankGroup:
    """A group of processes that run :mod:`hunyuan_local.backends.multi_gpu.rank`.

    Args:
        size: number of ranks.
        device: ``cpu``, or ``cuda`` with one GPU per rank.
        is_cancelled: polled while the ranks start.

    Attributes:
        pids: process id of each rank.
        folder: shared temporary folder, deleted with the group.

    Raises:
        GenerationCancelledError: cancelled while the ranks started.
        RankFailedError: a rank could not be started.
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
        """Send a message to all ranks; :meth:`next_message` reports those that have exited."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.send(kind, **content)

    def next_message(self, timeout_s: float) -> tuple[int, Message | None] | None:
        """The next message with its rank; (rank, None) if that rank has exited; None after the timeout."""
        try:
            return self._messages.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def is_whole(self) -> bool:
        """Whether all ranks are alive; call it between commands, since it drops pending messages."""
        while (found := self.next_message(0)) is not None:
            if found[1] is None:
                return False
        return True

    def death_of(self, rank: int) -> Message:
        """The error of a rank that exited without reporting one: its exit status and the last line of its log."""
        child = self._children[rank]
        child.wait(_ENDING_S)
        text = exit_in_words(child.exit_code)
        # After a SIGKILL the last log line is unrelated to the cause.
        words = "" if child.exit_code == -signal.SIGKILL else child.last_words()
        return {"kind": "error", "type": "", "text": f"{text}: {words}" if words else text}

    def close(self) -> None:
        """Let all ranks clean up, such as weights offloaded to disk, then kill those that do not exit in time."""
        self.send("leave")
        deadline = time.monotonic() + _LEAVING_S
        for child in self._children:
            child.wait(max(0.0, deadline - time.monotonic()))
        self.kill()

    def kill(self) -> None:
        """Kill all ranks immediately."""
        for child, connection in zip(self._children, self._connections, strict=True):
            child.kill()
            connection.close()
        self._own.close()

    def _start(self, rank: int) -> None:
        environment = {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(self.size), "LOCAL_WORLD_SIZE": str(self.size)
        }  # fmt: skip
        wanted = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // self.size))}
        if sys.platform == "linux":  # all traffic stays on this machine
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
        """Wait until each rank has said hello."""
        missing = self.size
        while missing:
            if is_cancelled():
                raise GenerationCancelledError("cancelled while the ranks started; no file was kept")
            found = self.next_message(0.1)
            if found is None:
                continue
            rank, message = found
            if message is None:
                raise RankFailedError(
                    f"context_parallel={self.size}: the ranks could not be started: rank {rank} "
                    f"{self.death_of(rank)['text']}; try without --context-parallel"
                )
            missing -= 1
