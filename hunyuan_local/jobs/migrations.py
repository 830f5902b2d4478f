"""The store's schema as numbered migrations; never change a released migration, add a new one."""

from __future__ import annotations

import sqlite3

from ..errors import StoreError

MIGRATIONS = (
    # 1: jobs
    """
    CREATE TABLE jobs (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        job_id TEXT NOT NULL UNIQUE,
        status TEXT NOT NULL DEFAULT 'queued'
            CHECK (status IN ('queued', 'running', 'succeeded', 'failed', 'canceled')),
        model TEXT NOT NULL,
        request TEXT NOT NULL,
        origin TEXT NOT NULL,
        max_attempts INTEGER NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        worker TEXT,
        lease_until REAL,
        lease_s REAL,
        cancel_requested INTEGER NOT NULL DEFAULT 0,
        progress TEXT,
        created_at REAL NOT NULL,
        started_at REAL,
        finished_at REAL,
        result TEXT,
        error TEXT NOT NULL DEFAULT '',
        failure TEXT,
        webhook TEXT,
        webhook_state TEXT CHECK (webhook_state IN ('waiting', 'delivered', 'given up')),
        webhook_attempts INTEGER NOT NULL DEFAULT 0,
        webhook_at REAL,
        webhook_error TEXT NOT NULL DEFAULT ''
    );
    CREATE INDEX jobs_by_status ON jobs (status, number);
    CREATE INDEX jobs_by_end ON jobs (finished_at);
    CREATE INDEX jobs_by_webhook ON jobs (webhook_state) WHERE webhook_state = 'waiting';
    """,
    # 2: workers
    """
    CREATE TABLE workers (
        name TEXT PRIMARY KEY,
        pid INTEGER NOT NULL,
        model TEXT NOT NULL,
        device TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('loading', 'idle', 'working', 'waiting')),
        note TEXT NOT NULL,
        memory_bytes INTEGER,
        memory_total_bytes INTEGER,
        seen_at REAL NOT NULL
    );
    """,
)


def migrate(connection: sqlite3.Connection) -> None:
    """Migrate a database to the latest schema in one transaction.

    Raises:
        StoreError: a newer version of this package wrote it.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found > len(MIGRATIONS):
            raise StoreError(
                f"the job store has schema {found}, this version supports up to {len(MIGRATIONS)}; "
                "upgrade hunyuan-local"
            )
        for number, script in enumerate(MIGRATIONS[found:], start=found + 1):
            for statement in script.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
