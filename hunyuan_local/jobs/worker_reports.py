"""The workers of a store, as they report themselves every few seconds.

Reports are for people and metrics only; decisions are based on leases. So no report waits for the disk.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from .database import Database

WorkerState = Literal["loading", "idle", "working", "waiting"]


class WorkerReport(BaseModel):
    """A worker's report.

    ``state``: loading the model, idle, working on a job, or waiting for the reason in ``note``. The memory fields
    are the device's peak usage since the start and its total, in bytes; None on a device that does not report them.
    ``seen_at`` is in seconds since 1970.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    pid: int
    model: str
    device: str
    state: WorkerState
    note: str = ""
    memory_bytes: int | None = None
    memory_total_bytes: int | None = None
    seen_at: float = 0.0


class WorkerReports:
    """The reports of one store's workers."""

    def __init__(self, database: Database):
        self._database = database

    def report(self, report: WorkerReport) -> None:
        """Store a worker's report, with the current time."""
        fields = report.model_dump() | {"seen_at": self._database.clock()}
        names = ", ".join(fields)
        marks = ", ".join(f":{name}" for name in fields)
        self._database.run(f"INSERT OR REPLACE INTO workers ({names}) VALUES ({marks})", fields, durable=False)

    def leave(self, name: str) -> None:
        """Delete the report of a worker that has ended."""
        self._database.run("DELETE FROM workers WHERE name = ?", (name,), durable=False)

    def recent(self, within_s: float = 12.0) -> list[WorkerReport]:
        """Reports of the last ``within_s`` seconds, by name; a running worker reports every 5 s."""
        since = self._database.clock() - within_s
        rows = self._database.run("SELECT * FROM workers WHERE seen_at >= ? ORDER BY name", (since,))
        return [WorkerReport(**dict(row)) for row in rows]
