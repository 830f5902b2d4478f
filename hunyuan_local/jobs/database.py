"""One SQLite file shared by threads and processes; its errors become StoreError.

Each statement is one transaction. Independent of the meaning of the tables.
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

# With a write-ahead log, FULL syncs the log at every commit, so an acknowledged job survives a power cut. NORMAL
# leaves the sync to a later checkpoint or FULL commit: https://www.sqlite.org/pragma.html#pragma_synchronous
_SAFE, _FAST = "PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL"

_PRIMARY_CODE = 0xFF  # the rest of an error code says where the error occurred
_NOT_WRITABLE = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)
_REMEDIES = {
    **dict.fromkeys(
        _NOT_WRITABLE, "no job was lost: make the file and its folder writable for this user, and check the disk"
    ),
    sqlite3.SQLITE_FULL: "no job was lost: free some space on the disk",
    sqlite3.SQLITE_BUSY: "no job was lost: another process holds its lock; end that process",
}
_DAMAGED = (
    "nothing was overwritten: restore the file from a backup, or move it away to start with an empty store; check the "
    "disk"
)


class Database:
    """One connection per thread to a SQLite file, migrated to the latest schema.

    Args:
        path: the SQLite file; created if it does not exist.
        clock: seconds since 1970.

    Raises:
        StoreError: the file is damaged, not a job store, or not writable; it is not changed.
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
            durable: wait until the change is on disk, so it survives a power cut. Otherwise a power cut may lose the
                change, though never part of it. A process that dies loses nothing either way.

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
        """Return when another connection changes the file, when ``ended()`` is true, or after ``limit_s`` seconds.

        Polls ``PRAGMA data_version``, SQLite's count of changes by other connections. Reading it takes a few
        microseconds and no lock.
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
        """The change count at this thread's last wait, so that no change between two waits is missed."""
        return getattr(self._local, "version", None)

    def close(self) -> None:
        """Close this thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    @contextmanager
    def _translated(self) -> Iterator[sqlite3.Connection]:
        """Yield this thread's connection; turn SQLite's errors into StoreError."""
        try:
            yield self._connection()
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE
            if code in _NOT_WRITABLE:
                self.close()  # a connection that was opened read-only stays so when the file is writable again
            raise StoreError(
                f"the job store {self.path} cannot be used: {error}; {_REMEDIES.get(code, _DAMAGED)}"
            ) from error

    def _connection(self) -> sqlite3.Connection:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            # Wait up to 30 s for locks of other connections.
            connection = sqlite3.connect(self.path, timeout=30, isolation_level=None)
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(_SAFE)
            self._local.connection = connection
        return connection
