"""Who works on the jobs of a store, as the workers themselves say it now and then.

What stands here is for people and for metrics; nothing is decided by it. Leases decide. So nobody waits for the
disk either.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from .database import Database

WorkerState = Literal["loading", "idle", "working", "waiting"]


class WorkerReport(BaseModel):
    """What a worker says of itself.

    ``state``: it loads the model; is idle; works on a job; or waits for what ``note`` says. Memory
    is the device's: the most that was taken since the start, and all there is, in bytes; None on a
    device that does not count. ``seen_at`` is in seconds since 1970.
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
    """The workers of one store."""

    def __init__(self, database: Database):
        self._database = database

    def report(self, report: WorkerReport) -> None:
        """Write down what a worker says; the time is now."""
        fields = report.model_dump() | {"seen_at": self._database.clock()}
        names = ", ".join(fields)
        marks = ", ".join(f":{name}" for name in fields)
        self._database.run(f"INSERT OR REPLACE INTO workers ({names}) VALUES ({marks})", fields, durable=False)

    def leave(self, name: str) -> None:
        """A worker has ended."""
        self._database.run("DELETE FROM workers WHERE name = ?", (name,), durable=False)

    def recent(self, within_s: float = 12.0) -> list[WorkerReport]:
        """Those that were seen in the last ``within_s`` seconds, by name; a living one reports every 5 s."""
        since = self._database.clock() - within_s
        rows = self._database.run("SELECT * FROM workers WHERE seen_at >= ? ORDER BY name", (since,))
        return [WorkerReport(**dict(row)) for row in rows]
