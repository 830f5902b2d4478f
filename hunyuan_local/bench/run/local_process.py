"""A process for what may crash or be killed for its memory: asked for one thing after another.

Knows nothing about what the process does; see :mod:`.local_program`.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from ...supervision import Child, exit_in_words
from .local_program import CANCEL, END

_PROGRAM = "hunyuan_local.bench.run.local_program"
_GRACE_S = 10.0  # for the step that is under way when it is told to stop


class ProcessDied(Exception):
    """The process ended without an answer; the message says how."""


@dataclass(frozen=True)
class _Running:
    child: Child
    connection: Connection


class LocalProcess:
    """Started with the first question, and again with the next one after it has died.

    Args:
        options: of :class:`~hunyuan_local.backends.local.backend.LocalBackend`.
    """

    def __init__(self, options: dict[str, Any]):
        self.options = options
        self._running: _Running | None = None

    @property
    def pid(self) -> int | None:
        """Its number, while there is one."""
        return None if self._running is None else self._running.child.pid

    def ask(self, *order: Any) -> Any:
        """Have it do something; the answer.

        Raises:
            ProcessDied: it ended, or was killed, before it answered.
            KeyboardInterrupt: Ctrl-C or SIGTERM; the process was stopped.
        """
        if self._running is not None and self._running.child.exit_code is not None:
            self._bury()  # it died while it had nothing to do
        try:
            connection = (self._running or self._start()).connection
            connection.send(order)
            return connection.recv()
        except (EOFError, OSError) as error:
            raise ProcessDied(f"the process that makes local videos {exit_in_words(self._bury())}") from error
        except BaseException:
            self._stop()
            raise

    def close(self) -> None:
        """End it, if it runs; it holds nothing that would be lost, so it is killed if it takes too long."""
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
        """Let it leave its files in order, within a step; then end it."""
        if self._running is None:  # stopped while it was being started
            return
        with contextlib.suppress(OSError, EOFError):
            self._running.connection.send((CANCEL,))
            if self._running.connection.poll(_GRACE_S):
                self._running.connection.recv()
        self.close()

    def _bury(self) -> int | None:
        """See it end, within a time; its exit code."""
        running, self._running = self._running, None
        if running is None:
            return None
        running.child.wait(_GRACE_S)
        running.child.kill()
        running.connection.close()
        return running.child.exit_code
