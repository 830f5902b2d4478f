"""Terminal output of a running batch: overall progress, each video in progress, and finished videos."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table

from ...batch.forecast import seconds_left
from ...batch.run import Batch, ItemState
from ...batch.summary import Summary
from ...durations import clock
from ...jobs.job import Job
from .console import SECONDS_BETWEEN_LINES, STAGE_WORDS

_FORECAST_EVERY_S = 2.0


class BatchDisplay:
    """One progress line for the batch and one for each video in progress; plain lines without a terminal.

    Args:
        workers: number of videos generated in parallel.
        is_stopping: returns whether the batch is being stopped.
    """

    def __init__(self, console: Console, batch: Batch, workers: int, is_stopping: Callable[[], bool] = lambda: False):
        self._console, self._batch, self._workers, self._is_stopping = console, batch, workers, is_stopping
        self._live = console.is_terminal
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[detail]}"),
            console=console,
            disable=not self._live,
        )
        self._total = self._bars.add_task("videos", total=len(batch.items), detail="")
        self._tasks: dict[str, TaskID] = {}
        self._told: set[str] = set()
        self._notes: set[str] = set()
        self._left: float | None = None
        self._forecast_at = self._logged_at = -_FORECAST_EVERY_S

    def __enter__(self) -> BatchDisplay:
        self._told = {state.item.key for state in self._batch.states() if state.status in ("done", "failed")}
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks.values():
            self._bars.remove_task(task)
        self._bars.stop()

    def update(self) -> None:
        """Refresh the display; call it regularly."""
        states = self._batch.states()
        for state in states:
            if state.status in ("done", "failed") and state.item.key not in self._told:
                self._told.add(state.item.key)
                self._tell(state)
        done = sum(state.status == "done" for state in states)
        running = self._batch.running()
        self._forecast([job for _, job in running])
        left = "" if self._left is None or done == len(states) else f"  {clock(self._left)} left"
        self._bars.update(self._total, completed=done, detail=f"{done}/{len(states)}{left}")
        self._show_running({job.job_id: (item.line, job) for item, job in running})
        if not self._live and time.monotonic() - self._logged_at > SECONDS_BETWEEN_LINES:
            self._logged_at = time.monotonic()
            at_work = ", ".join(f"line {item.line} {_detail(job)}" for item, job in running) or self._preparing()
            if at_work:
                self._console.print(f"{done} of {len(states)} videos{left}: {at_work}", markup=False)

    def _tell(self, state: ItemState) -> None:
        """Print one line for a finished video, and its notes that were not printed before."""
        job = state.job
        assert job is not None  # a finished item has a job
        if state.status == "failed":
            self._console.print(f"line {state.item.line} failed: {state.problem or job.error}", markup=False)
            return
        self._console.print(f"line {state.item.line}: {state.name}, {_seconds_of(job)}", markup=False)
        assert job.result is not None  # it has succeeded
        for note in job.result["notes"]:
            if note not in self._notes:
                self._notes.add(note)
                self._console.print(f"note: {note}", markup=False)

    def _forecast(self, running: list[Job]) -> None:
        if time.monotonic() - self._forecast_at >= _FORECAST_EVERY_S:
            self._forecast_at = time.monotonic()
            self._left = seconds_left(self._batch, running, self._workers)

    def _show_running(self, running: dict[str, tuple[int, Job]]) -> None:
        for job_id in self._tasks.keys() - running.keys():
            self._bars.remove_task(self._tasks.pop(job_id))
        for job_id, (line, job) in running.items():
            if job_id not in self._tasks:
                self._tasks[job_id] = self._bars.add_task(f"line {line}", total=None, detail="")
            progress = job.progress
            total = progress.total if progress is not None and progress.total else None
            done = progress.step if progress is not None else 0
            self._bars.update(self._tasks[job_id], total=total, completed=done, detail=_detail(job))
        if not running and self._live and (what := self._preparing()):
            self._bars.update(self._total, detail=what)

    def _preparing(self) -> str:
        """What the workers are doing while no video is in progress; empty when the batch is finished."""
        if not self._batch.unfinished():
            return ""
        if self._is_stopping():
            return "workers are saving their state and stopping"
        reports = self._batch.store.worker_reports.recent()
        if not reports:
            return "workers are starting"
        waiting = [report for report in reports if report.state in ("loading", "waiting")]
        notes = [report.note for report in waiting if report.note]
        if notes:
            return notes[0]
        return "workers are loading the libraries and the model" if waiting else "starting the next video"


def print_batch_summary(console: Console, summary: Summary) -> None:
    """Print counts, seconds and the reason for each failure."""
    counts = summary.counts
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    rows = [
        ("videos", str(sum(counts.values()))),
        ("done", f"{counts['done']}, {summary.made} in this run"),
        ("failed", str(counts["failed"])),
        ("left", str(summary.left)),
        ("seconds", f"{summary.seconds:.1f}"),
    ]
    if summary.spent_usd is not None:
        rows.append(("spent", f"about {summary.spent_usd:.2f} US dollars, including earlier runs"))
    for name, value in rows:
        table.add_row(name, value)
    console.print(table)
    for line, reason in summary.failures:
        console.print(f"line {line}: {reason}", markup=False)


def _seconds_of(job: Job) -> str:
    assert job.result is not None  # it has succeeded
    timings = job.result["timings"]
    return f"{timings['total_s']:.1f} s" + (f", attempt {job.attempts}" if job.attempts > 1 else "")


def _detail(job: Job) -> str:
    progress = job.progress
    if progress is None:
        return "starting"
    text = STAGE_WORDS[progress.stage]
    if progress.total:
        text += f" {progress.step}/{progress.total}"
    if progress.seconds_per_step is not None:
        text += f"  {progress.seconds_per_step:.2f} s/step"
    return text
