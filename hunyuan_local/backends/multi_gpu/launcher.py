"""The processes that make a video together, seen from the one that starts them with ``torch.distributed.run``.

Each connects to a socket that only this user can reach. While it is connected it lives, and it ends as soon as
its connection does; so whoever dies first, nobody is left behind. Knows nothing about videos.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...errors import GenerationCancelledError, RankFailedError
from .messages import Message, MessageSocket

_PROGRAM = "hunyuan_local.backends.multi_gpu.rank"
_LEAVING_S = 20.0


class RankGroup:
    """``size`` processes, which run :mod:`hunyuan_local.backends.multi_gpu.rank`.

    Args:
        size: how many.
        device: ``cpu``, or ``cuda`` with a GPU for each.
        is_cancelled: asked while they start.

    Raises:
        GenerationCancelledError: cancelled while they started.
        RankFailedError: they cannot be started.
    """

    def __init__(self, size: int, device: str, is_cancelled: Callable[[], bool]):
        self.size, self.device = size, device
        self.pids: dict[int, int] = {}
        self._connections: dict[int, MessageSocket] = {}
        self._messages: queue.SimpleQueue[tuple[int, Message | None]] = queue.SimpleQueue()
        self.folder = Path(tempfile.mkdtemp(prefix="hunyuan-"))  # of mode 0700
        self._log = self.folder / "log"
        self._launcher: subprocess.Popen | None = None
        try:
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(str(self.folder / "socket"))
                listening.listen(size)
                listening.settimeout(0.1)
                self._launch()
                self._meet(listening, is_cancelled)
        except BaseException:
            self.kill()
            raise

    def send(self, kind: str, **content: Any) -> None:
        """Send a message to all; one that is gone is told of by :meth:`next`."""
        for connection in self._connections.values():
            with contextlib.suppress(OSError):  # see above
                connection.send(kind, **content)

    def next(self, timeout_s: float) -> tuple[int, Message | None] | None:
        """The next message and the rank it is from, None in its place if that one is gone; None after the time."""
        try:
            return self._messages.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def is_whole(self) -> bool:
        """Whether all are there, while none has anything to say; what was sent before is dropped."""
        while (found := self.next(0)) is not None:
            if found[1] is None:
                return False
        return True

    def death_of(self, rank: int) -> Message:
        """The error of a process that is gone without a word, as far as its starter knows what it ended of."""
        status = self._exit_status(rank)
        # Once one has died, the starter ends the others with SIGTERM; which of them is seen first is chance.
        return {"kind": "error", "type": "", "text": _in_words(status), "follows": status == -signal.SIGTERM}

    def _exit_status(self, rank: int) -> int:
        """As :class:`subprocess.Popen` gives it; 0 if it is not known."""
        if self._launcher is None or rank not in self.pids:
            return 0
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._launcher.wait(5)  # it stops the others and then says what happened
        found = re.search(rf"exitcode\s*: (-?\d+) \(pid: {self.pids[rank]}\)", self._log.read_text(errors="replace"))
        return 0 if found is None else int(found[1])

    def close(self) -> None:
        """Let all finish what they hold, such as files of weights on disk; at once where one does not answer."""
        self.send("leave")
        if self._launcher is not None and self._connections:
            with contextlib.suppress(subprocess.TimeoutExpired):  # they are killed next
                self._launcher.wait(_LEAVING_S)
        self.kill()

    def kill(self) -> None:
        """End all of them at once."""
        for pid in self.pids.values() if self._is_running() else ():
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(pid, signal.SIGKILL)
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        if self._launcher is not None:
            # Asked to end it ends those that have not connected yet; SIGKILL would leave them.
            self._launcher.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):  # it is killed next
                self._launcher.wait(10)
            self._launcher.kill()
            self._launcher.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _is_running(self) -> bool:
        """Whether the starter is there: it waits for the processes, so that as long their numbers are theirs."""
        return self._launcher is not None and self._launcher.poll() is None

    def _launch(self) -> None:
        threads = max(1, (os.cpu_count() or 1) // self.size)
        env = {"OMP_NUM_THREADS": str(threads)}
        if sys.platform == "linux":  # nothing of it is for other machines
            env |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
        env |= os.environ
        if self.device == "cpu":
            env["CUDA_VISIBLE_DEVICES"] = ""
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
        command += ["--nproc-per-node", str(self.size), "-m", _PROGRAM, str(self.folder / "socket")]
        with self._log.open("wb") as log:
            # A session of its own, so that Ctrl-C reaches the parent alone, which then lets all of them stop in step.
            self._launcher = subprocess.Popen(
                command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def _meet(self, listening: socket.socket, is_cancelled: Callable[[], bool]) -> None:
        while len(self._connections) < self.size:
            if is_cancelled():
                raise GenerationCancelledError("cancelled while the processes started; no file was kept")
            if self._launcher.poll() is not None:
                raise RankFailedError(
                    f"context_parallel={self.size}: its processes could not be started: {self._last_words()}; try "
                    "without --context-parallel"
                )
            with contextlib.suppress(TimeoutError):  # time to look whether to go on waiting
                connection, _ = listening.accept()
                connection.settimeout(None)
                self._welcome(MessageSocket(connection))

    def _welcome(self, connection: MessageSocket) -> None:
        messages = connection.receive()
        hello = next(messages, None)
        if hello is None:
            return  # its end is the launcher's, too
        rank = hello["rank"]
        self.pids[rank], self._connections[rank] = hello["pid"], connection

        def read() -> None:
            for message in messages:
                self._messages.put((rank, message))
            self._messages.put((rank, None))

        threading.Thread(target=read, name=f"rank-{rank}", daemon=True).start()

    def _last_words(self) -> str:
        """The last line of an error that the log has."""
        lines = self._log.read_text(errors="replace").splitlines()
        errors = [line for line in lines if re.search(r"\w(Error|Exception)\b", line)]
        return (errors or lines or ["no reason was given"])[0].strip()


def _in_words(status: int) -> str:
    """How a process ended."""
    if status == -signal.SIGKILL:
        return "was killed (SIGKILL), most often by the system for want of main memory"
    if status < 0:
        return f"was killed by signal {-status} ({signal.strsignal(-status)})"
    return f"ended with status {status}" if status else "is gone"
