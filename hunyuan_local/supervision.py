"""Child processes: start them, end them together with this process, and describe how they ended.

A socket connects parent and child. The kernel closes it when either dies, even by SIGKILL, so each notices the end of
the other. This module knows nothing about what the processes do.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

_LONGEST_PAUSE_S = 60.0
_HEALTHY_S = 60.0
_ERROR_LINE = re.compile(r"[\w.]*(Error|Exception)\b")  # the start of a traceback's last line


class Child:
    """A Python child process that ends with this one.

    The child opens its end of the socket with :func:`parent_connection`. It runs in a separate session: Ctrl-C in the
    terminal reaches only this process, which then ends its children.

    Args:
        module: module to run, as in ``python -m``.
        arguments: command-line arguments of the module.
        environment: environment variables, added to those of this process.
        log: file to append all output to, if it can be written; None uses this process's standard error.

    Attributes:
        connection: this process's end of the socket.

    Raises:
        OSError: the process cannot be started.
    """

    def __init__(
        self, module: str, *arguments: str, environment: Mapping[str, str] | None = None, log: Path | None = None
    ):
        self._log, self._log_begin = log, 0
        self.connection, theirs = socket.socketpair()
        with theirs, self._output() as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=theirs.fileno(), stdout=output, stderr=output, env=os.environ | dict(environment or {}),
                start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """As in :class:`subprocess.Popen`: negative for a signal, None while the process runs."""
        return self._process.poll()

    def ask_to_end(self) -> None:
        """Send SIGTERM; may be called from a signal handler."""
        self._process.terminate()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the process to end; return False if it still runs after ``timeout_s`` seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        return self._process.returncode is not None

    def kill(self) -> None:
        """Kill the process and wait until it is gone."""
        self._process.kill()
        self._process.wait()

    def last_words(self) -> str:
        """The last log line that starts with the name of an exception, else the last line; empty without a log."""
        if self._log is None:
            return ""
        with self._log.open("rb") as log:
            log.seek(self._log_begin)
            lines = log.read().decode(errors="replace").strip().splitlines()
        errors = [line for line in lines if _ERROR_LINE.match(line)]
        return (errors or lines or [""])[-1].strip()

    def _output(self) -> contextlib.AbstractContextManager[IO[bytes] | int]:
        if self._log is None:
            return contextlib.nullcontext(2)
        try:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            file = self._log.open("ab")
        except OSError:  # continue without a log
            self._log = None
            return open(os.devnull, "ab")
        self._log_begin = file.tell()
        return file


def parent_connection() -> socket.socket:
    """Open the socket to the parent of this :class:`Child`; call it once.

    Standard input is empty afterwards. Processes started by this one do not inherit the socket, so the parent notices
    the end of this process immediately.
    """
    descriptor = os.dup(0)  # not inheritable
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    return socket.socket(fileno=descriptor)


def end_with_parent(connection: socket.socket) -> None:
    """Start a thread that sends SIGTERM to this process when its parent is gone."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            while connection.recv(4096):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def exit_in_words(code: int | None) -> str:
    """Describe how a process ended, as the end of a sentence.

    Args:
        code: exit code as in :class:`subprocess.Popen`; None if unknown.
    """
    if code is None:
        return "is gone"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # a real-time signal
        name = f"signal {-code}"
    hint = ", probably because main memory ran out" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"


class Restarts:
    """Decides when a dead process restarts: after 1 s if it ran for a while, else with exponential backoff.

    Args:
        clock: monotonic clock in seconds.

    Attributes:
        early_deaths: number of consecutive processes that died early.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._began = self._due = clock()
        self._pause_s = 1.0
        self.early_deaths = 0

    @property
    def is_due(self) -> bool:
        """Whether the next process may start."""
        return self._clock() >= self._due

    @property
    def is_young(self) -> bool:
        """Whether the current process could still count as an early death."""
        return self._clock() - self._began <= _HEALTHY_S

    def begin(self) -> None:
        """Record that a process starts now."""
        self._began = self._clock()

    def end(self) -> float:
        """Record that the process died; return the seconds until the next start."""
        lived_s = self._clock() - self._began
        self.early_deaths = 0 if lived_s > _HEALTHY_S else self.early_deaths + 1
        self._pause_s = 1.0 if lived_s > _HEALTHY_S else min(2 * self._pause_s, _LONGEST_PAUSE_S)
        self._due = self._clock() + self._pause_s
        return self._pause_s
