"""One SQLite file shared by threads and processes, with its errors in this project's words.

Each statement is a transaction of its own. Knows the schema's number, not what the tables mean.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import StoreError
from .migrations import migrate

# With a write-ahead log, FULL syncs it at every commit: a job that was acknowledged survives a power cut. NORMAL
# leaves that to the next one that does: https://www.sqlite.org/pragma.html#pragma_synchronous
_SAFE, _FAST = "PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL"


class Database:
    """A connection a thread to one file, at the newest schema.

    Args:
        path: the SQLite file; made if it is not there.
        clock: seconds since 1970.

    Raises:
        StoreError: the file is damaged, not a job store, or cannot be written; it is left as it is.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time):
        self.path = path
        self.clock = clock
        self._local = threading.local()
        with self._translated() as connection:
            migrate(connection)

    def run(
        self, statement: str, values: Sequence[Any] | Mapping[str, Any] = (), *, durable: bool = True
    ) -> list[sqlite3.Row]:
        """Run one statement and return its rows.

        Args:
            durable: what it changes survives a power cut, for which the disk is waited for. Where not, it may be
                lost with one, but nothing of it half: the death of a process costs nothing either way.

        Raises:
            StoreError: the file is damaged, locked for 30 s, or the disk is full.
        """
        with self._translated() as connection:
            if durable:
                return connection.execute(statement, values).fetchall()
            connection.execute(_FAST)
            try:
                return connection.execute(statement, values).fetchall()
            finally:
                connection.execute(_SAFE)

    def wait_for_change(self, ended: Callable[[], bool], limit_s: float, look_s: float = 0.02) -> None:
        """Return when another connection has changed the file, ``ended`` says so, or after ``limit_s`` seconds.

        SQLite counts the changes of others (``PRAGMA data_version``); to read the count takes no
        lock and some microseconds, so it can be looked at often.
        """
        with self._translated() as connection:
            before = self._seen
            deadline = time.monotonic() + limit_s
            while time.monotonic() < deadline:
                self._local.version = connection.execute("PRAGMA data_version").fetchone()[0]
                if self._local.version != before or ended():
                    return
                time.sleep(look_s)

    @property
    def _seen(self) -> int | None:
        """The count of this thread's last wait, so that no change in between is missed."""
        return getattr(self._local, "version", None)

    def close(self) -> None:
        """Close this thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    @contextmanager
    def _translated(self) -> Iterator[sqlite3.Connection]:
        """This thread's connection; what SQLite raises becomes an error of ours."""
        try:
            yield self._connection()
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"the job store {self.path} cannot be used: {error}; nothing was overwritten: restore the file from a "
                "copy, or move it away to start with an empty one; check the disk"
            ) from error

    def _connection(self) -> sqlite3.Connection:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            # Others wait up to 30 s for their turn.
            connection = sqlite3.connect(self.path, timeout=30, isolation_level=None)
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(_SAFE)
            self._local.connection = connection
        return connection
