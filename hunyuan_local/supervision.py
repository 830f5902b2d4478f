"""Processes that this one starts and looks after: their start, their end with this one, and how they ended in words.

A socket connects parent and child. The kernel closes it when either of them dies, even by SIGKILL, so that each sees
the other's end. Knows nothing about what the processes do.
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
_ERROR_LINE = re.compile(r"[\w.]*(Error|Exception)\b")  # as the last line of a traceback begins


class Child:
    """A Python process that ends with this one; the module takes the other end with :func:`parent_connection`.

    It has its own session: Ctrl-C in the terminal reaches this process alone, which then ends its children.

    Args:
        module: what it runs, as ``python -m`` takes it.
        arguments: of the module.
        environment: variables, added to those of this process.
        log: the file to which all its output is appended, where it can be written; None is this process's standard
            error.

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
        """The number of the process."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """As :class:`subprocess.Popen` has it: negative is a signal; None while the process runs."""
        return self._process.poll()

    def ask_to_end(self) -> None:
        """Send SIGTERM; may be called from a signal handler."""
        self._process.terminate()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end; False if the process still runs after ``timeout_s`` seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        return self._process.returncode is not None

    def kill(self) -> None:
        """End the process at once, and wait for its end."""
        self._process.kill()
        self._process.wait()

    def last_words(self) -> str:
        """The last line of its log that begins with the name of an error, else the last line; empty without a log."""
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
        except OSError:  # the work goes on without
            self._log = None
            return open(os.devnull, "ab")
        self._log_begin = file.tell()
        return file


def parent_connection() -> socket.socket:
    """The socket to the process that started this one as a :class:`Child`; to be called once.

    It leaves standard input empty. No process that this one starts inherits the socket, so the parent sees this
    process's end at once.
    """
    descriptor = os.dup(0)  # not inheritable
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    return socket.socket(fileno=descriptor)


def end_with_parent(connection: socket.socket) -> None:
    """Send SIGTERM to this process as soon as its parent is gone; returns at once."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            while connection.recv(4096):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def exit_in_words(code: int | None) -> str:
    """How a process ended, as the end of a sentence.

    Args:
        code: as :class:`subprocess.Popen` has it; None is not known.
    """
    if code is None:
        return "is gone"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # a real-time signal
        name = f"signal {-code}"
    hint = ", as the system does when main memory runs out" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"


class Restarts:
    """When a process that died starts again: after 1 s if it lived long, else after pauses that double.

    Args:
        clock: seconds that never go back.

    Attributes:
        early_deaths: how many in a row did not live long.
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
        """Whether the present process has not lived long yet."""
        return self._clock() - self._began <= _HEALTHY_S

    def begin(self) -> None:
        """A process starts now."""
        self._began = self._clock()

    def end(self) -> float:
        """The process has died; the seconds until the next one starts."""
        lived_s = self._clock() - self._began
        self.early_deaths = 0 if lived_s > _HEALTHY_S else self.early_deaths + 1
        self._pause_s = 1.0 if lived_s > _HEALTHY_S else min(2 * self._pause_s, _LONGEST_PAUSE_S)
        self._due = self._clock() + self._pause_s
        return self._pause_s
