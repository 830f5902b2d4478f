"""Terminal output of a bench: one line per run on stderr, and a status line on a terminal."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.status import Status

from ...bench.results.result import BenchRun
from ...bench.run.plan import PlannedRun
from ...durations import clock

_COLUMNS = 80


class BenchDisplay:
    """Prints each run.

    Args:
        total: number of runs.

    Attributes:
        done: number of finished runs.
    """

    def __init__(self, console: Console, total: int):
        self._console, self._total, self.done = console, total, 0
        self._status = Status("", console=console) if console.is_terminal else None
        self._told: set[str] = set()

    def __enter__(self) -> BenchDisplay:
        self._console.print(f"{self._total} runs to do", markup=False)
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def begin(self, number: int, run: PlannedRun) -> None:
        """Show that a run has started."""
        if self._status is not None:
            self._status.update(self._cut(f"{number}/{self._total} {run.label}, {_request(run)}"))

    def row(self, number: int, row: BenchRun) -> None:
        """Print a finished run, and its notes that were not printed before."""
        self.done = number
        for note in row.notes:
            if note not in self._told:
                self._told.add(note)
                self._console.print(f"note: {one_line(note)}", markup=False)
        line = f"{number}/{self._total} {row.backend}, {_request(row)}: {_end(row)}"
        self._console.print(self._cut(line), markup=False)

    def _cut(self, text: str) -> str:
        return text if len(text) <= _COLUMNS else f"{text[: _COLUMNS - 3]}..."


def one_line(text: str) -> str:
    """Replace line breaks and control characters by spaces."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _request(run: PlannedRun | BenchRun) -> str:
    """Scenario, size, frames, steps and the number of the run."""
    request = run.request
    frames = "" if request.num_frames is None else f"x{request.num_frames}"
    kind = "warm-up " if run.kind == "warmup" else "#"
    size = f"{request.width}x{request.height}{frames}"
    return f"{one_line(run.scenario)[:24]} {size} {request.num_inference_steps} steps {kind}{run.repeat + 1}"


def _end(row: BenchRun) -> str:
    if row.status == "failed":
        return f"{row.error_kind}: {one_line(row.error)}"
    if row.status == "interrupted":
        return "resumed, so not timed"
    total_s = row.stages.total_s or 0.0
    return f"{total_s:.2f} s" if total_s < 100 else clock(total_s)
