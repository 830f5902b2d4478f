"""A process of its own for what may crash or be killed for its memory: asked for one thing after another.

Knows nothing about what the process does; see :mod:`.local_program`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from .local_program import CANCEL, END, serve

_GRACE_S = 10.0  # for the step that is under way when it is told to stop


class ProcessDied(Exception):
    """The process ended without an answer; the message says how."""


class LocalProcess:
    """Started with the first question, and again with the next one after it has died.

    Args:
        options: of :class:`~hunyuan_local.backends.local.backend.LocalBackend`.
    """

    def __init__(self, options: dict[str, Any]):
        self.options = options
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None

    @property
    def pid(self) -> int | None:
        """Its number, while there is one."""
        return None if self._process is None else self._process.pid

    def ask(self, *order: Any) -> Any:
        """Have it do something; the answer.

        Raises:
            ProcessDied: it ended, or was killed, before it answered.
            KeyboardInterrupt: Ctrl-C or SIGTERM; the process was stopped.
        """
        if self._process is not None and not self._process.is_alive():
            self._bury()  # it died while it had nothing to do
        try:
            if self._process is None:
                self._start()
            self._connection.send(order)
            return self._connection.recv()
        except (EOFError, OSError) as error:
            raise ProcessDied(self._bury()) from error
        except BaseException:
            self._stop()
            raise

    def close(self) -> None:
        """End it, if it runs; it holds nothing that would be lost, so it is killed if it takes too long."""
        if self._process is not None:
            with contextlib.suppress(OSError):  # it is gone already
                self._connection.send((END,))
            self._process.join(_GRACE_S)
            self._process.kill()
            self._bury()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        # daemon: it ends with this process even where that forgets it.
        self._process = context.Process(target=serve, args=(theirs, self.options), daemon=True)
        with _no_interrupt():
            self._process.start()
        theirs.close()  # so that its end is seen here

    def _stop(self) -> None:
        """Let it leave its files in order, within a step; then end it."""
        if self._process is None:  # stopped while it was being started
            return
        with contextlib.suppress(OSError, EOFError):  # it is gone already
            self._connection.send((CANCEL,))
            if self._connection.poll(_GRACE_S):
                self._connection.recv()
        self.close()

    def _bury(self) -> str:
        """Wait for its end; how it came."""
        process, connection = self._process, self._connection
        self._process = self._connection = None
        process.join()
        connection.close()
        code = process.exitcode
        process.close()
        if code is None or code >= 0:
            return f"the process that makes local videos ended with exit code {code}"
        name = signal.Signals(-code).name
        hint = ", as the system does when main memory runs out" if name == "SIGKILL" else ""
        return f"the process that makes local videos was killed by {name}{hint}"


@contextlib.contextmanager
def _no_interrupt() -> Iterator[None]:
    """Whoever is started inside ignores Ctrl-C from its first moment."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
