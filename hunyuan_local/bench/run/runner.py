"""Executes the runs of a bench one after another, and saves each row before the next run starts.

The order is that of :mod:`.plan`; :mod:`.makers` execute and time the runs. A failed run has a row like any other. An
interrupted run has no row; a resumed bench repeats it, or resumes its task at the service.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ...provenance import now
from ..results.result import BenchResult, BenchRun
from .outcome import Maker, Outcome, row_of
from .plan import PlannedRun, folder_name, key_of, measured_runs, missing_runs, warmup_runs
from .scenarios import ScenarioFile

EARLIER = "an earlier try failed: "
VIDEOS = "videos"


class Bench:
    """One bench in its folder.

    Args:
        file: the scenario file.
        result: the result so far, with its targets and existing rows.
        makers: one per target, in the targets' order.
        folder: folder of the result.
        retry_failed: repeat failed runs; the earlier error is kept as a note.
        keep_videos: if False, each video is deleted after its run.

    Attributes:
        todo: the remaining runs in order, warm-ups first.
    """

    def __init__(
        self,
        file: ScenarioFile,
        result: BenchResult,
        makers: Sequence[Maker],
        folder: Path,
        *,
        retry_failed: bool = False,
        keep_videos: bool = True,
    ):
        self.file, self.result, self._folder, self._keep_videos = file, result, folder, keep_videos
        self._makers = {maker.target.label: maker for maker in makers}
        self._ended: dict[str, Outcome] = {}
        self._refused: dict[tuple[str, object], Outcome] = {}
        self._planned = measured_runs(file, result.targets, result.repeats)
        self.todo = [
            *warmup_runs(file, result.targets, self._planned, result.runs, retry_failed=retry_failed),
            *missing_runs(self._planned, result.runs, retry_failed=retry_failed),
        ]

    @property
    def rows(self) -> list[BenchRun]:
        """Existing rows of the planned measured runs."""
        wanted = {run.key for run in self._planned}
        return [row for row in self.result.runs if key_of(row) in wanted]

    def save(self) -> None:
        """Write the current result to disk.

        Raises:
            ConfigError: the file cannot be written.
        """
        self.result.is_complete = len(self.rows) == len(self._planned)
        self.result.finished_at = (self.result.finished_at or now()) if self.result.is_complete else None
        self.result.save(self._folder / "result.json")

    def run(self, on_begin: Callable[[int, PlannedRun], None], on_row: Callable[[int, BenchRun], None]) -> None:
        """Execute the remaining runs.

        Args:
            on_begin: called before each run with its number, from 1, and the run.
            on_row: called with the number and the row after the row is saved.

        Raises:
            KeyboardInterrupt, GenerationCancelledError: stopped by the user.
            ConfigError: the result cannot be written.
        """
        self.save()  # marks the folder as a bench before the first run
        for number, run in enumerate(self.todo, start=1):
            on_begin(number, run)
            started_at = now()
            outcome = self._make(run)
            row = row_of(
                run, outcome, self._makers[run.label], started_at=started_at, costs=self.file.costs,
                allow_loss=self.file.allow_loss,
            )  # fmt: skip
            row = self._put(row, outcome)
            if not self._keep_videos:
                self._video(run).unlink(missing_ok=True)
            on_row(number, row)

    def _make(self, run: PlannedRun) -> Outcome:
        """Execute a run, unless an earlier one already shows that it would fail."""
        if (ended := self._ended.get(run.label)) is not None:
            text = f"not started, because an earlier run ended this backend: {ended.error}"
            return Outcome(error=text, error_kind=ended.error_kind)
        if (refused := self._refused.get((run.label, run.request))) is not None:
            notes = ["not tried again: the same request was refused before"]
            return Outcome(error=refused.error, error_kind=refused.error_kind, notes=notes)
        outcome = self._makers[run.label].make(run)
        if outcome.ends_target:
            self._ended[run.label] = outcome
        if outcome.is_refused:
            self._refused[run.label, run.request] = outcome
        return outcome

    def _put(self, row: BenchRun, outcome: Outcome) -> BenchRun:
        """Add a row, replacing an earlier failed row of the same run, and save."""
        key, kept = key_of(row), []
        for old in self.result.runs:
            if key_of(old) != key:
                kept.append(old)
                continue
            earlier = [note for note in old.notes if note.startswith(EARLIER)]
            said = f"{EARLIER}{old.error_kind}: {old.error}"
            row = row.model_copy(update={"notes": [*row.notes, *earlier, said]})
        self.result.runs = [*kept, row]
        if row.status != "failed" and outcome.device is not None:
            self.result.targets = [
                target.model_copy(update={"device": outcome.device}) if target.label == row.backend else target
                for target in self.result.targets
            ]
        self.save()
        return row

    def _video(self, run: PlannedRun) -> Path:
        return self._folder / VIDEOS / folder_name(self._makers[run.label].target) / run.file_name
