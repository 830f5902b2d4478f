"""Runs local generations in a child process, because they may crash or be killed for their memory.

Sends one request at a time and waits for its answer. The child is :mod:`.local_program`.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from ...supervision import Child, exit_in_words
from .local_program import CANCEL, END

_PROGRAM = "hunyuan_local.bench.run.local_program"
_GRACE_S = 10.0  # for the step in progress when the process is asked to stop


class ProcessDied(Exception):
    """The process ended without an answer; the message has the exit code or signal."""


@dataclass(frozen=True)
class _Running:
    child: Child
    connection: Connection


class LocalProcess:
    """A child process that starts with the first request, and restarts with the next request after it died.

    Args:
        options: options of :class:`~hunyuan_local.backends.local.backend.LocalBackend`.
    """

    def __init__(self, options: dict[str, Any]):
        self.options = options
        self._running: _Running | None = None

    @property
    def pid(self) -> int | None:
        """Process id; None if no process runs."""
        return None if self._running is None else self._running.child.pid

    def ask(self, *order: Any) -> Any:
        """Send one request and wait for the answer.

        Raises:
            ProcessDied: the process ended or was killed before it answered.
            KeyboardInterrupt: Ctrl-C or SIGTERM; the process was stopped.
        """
        if self._running is not None and self._running.child.exit_code is not None:
            self._bury()  # it died while idle
        try:
            connection = (self._running or self._start()).connection
            connection.send(order)
            return connection.recv()
        except (EOFError, OSError) as error:
            raise ProcessDied(f"the process that generates local videos {exit_in_words(self._bury())}") from error
        except BaseException:
            self._stop()
            raise

    def close(self) -> None:
        """End the process; kill it after the grace period, because it holds nothing that could be lost."""
        if self._running is not None:
            with contextlib.suppress(OSError):
                self._running.connection.send((END,))
            self._bury()

    def _start(self) -> _Running:
        child = Child(_PROGRAM)
        self._running = running = _Running(child, Connection(child.connection.detach()))
        running.connection.send(("options", self.options))
        return running

    def _stop(self) -> None:
        """Cancel the request in progress, so that the process cleans up its files; then end it."""
        if self._running is None:  # stopped during the start
            return
        with contextlib.suppress(OSError, EOFError):
            self._running.connection.send((CANCEL,))
            if self._running.connection.poll(_GRACE_S):
                self._running.connection.recv()
        self.close()

    def _bury(self) -> int | None:
        """Wait for the process to end, or kill it; return its exit code."""
        running, self._running = self._running, None
        if running is None:
            return None
        running.child.wait(_GRACE_S)
        running.child.kill()
        running.connection.close()
        return running.child.exit_code
