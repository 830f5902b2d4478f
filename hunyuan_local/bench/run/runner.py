"""Makes the runs of a bench one after another, and writes each down before the next begins.

The order is that of :mod:`.plan`; who makes a run, and how it is timed, is the makers' affair. A failed run is a row
like any other. What was stopped in mid-run has no row, and is made, or at a service continued, when the bench goes on.
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
        file: what is to be made.
        result: with the targets, and the rows that are there already.
        makers: one a target, in the targets' order.
        folder: of the result.
        retry_failed: make failed runs again; the error of the earlier try stays, as a note.
        keep_videos: else each is deleted once it was measured.

    Attributes:
        todo: what is left to be made, in order, warm-ups first.
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
        """The row of each measured run of the plan that has one."""
        wanted = {run.key for run in self._planned}
        return [row for row in self.result.runs if key_of(row) in wanted]

    def save(self) -> None:
        """Write the result as it is.

        Raises:
            ConfigError: the disk does not allow it.
        """
        self.result.is_complete = len(self.rows) == len(self._planned)
        self.result.finished_at = (self.result.finished_at or now()) if self.result.is_complete else None
        self.result.save(self._folder / "result.json")

    def run(self, on_begin: Callable[[int, PlannedRun], None], on_row: Callable[[int, BenchRun], None]) -> None:
        """Make what is left.

        Args:
            on_begin: told the number of each run, from 1, before it begins.
            on_row: told the number and what became of it, when that is on disk.

        Raises:
            KeyboardInterrupt, GenerationCancelledError: stopped by the user.
            ConfigError: the result cannot be written.
        """
        self.save()  # so that the folder is known to be a bench's, whatever happens
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
        """Make a run, unless it is known already how it would end."""
        if (ended := self._ended.get(run.label)) is not None:
            text = f"not begun, since an earlier run ended this backend: {ended.error}"
            return Outcome(error=text, error_kind=ended.error_kind)
        if (refused := self._refused.get((run.label, run.request))) is not None:
            notes = ["not tried again: it was refused before"]
            return Outcome(error=refused.error, error_kind=refused.error_kind, notes=notes)
        outcome = self._makers[run.label].make(run)
        if outcome.ends_target:
            self._ended[run.label] = outcome
        if outcome.is_refused:
            self._refused[run.label, run.request] = outcome
        return outcome

    def _put(self, row: BenchRun, outcome: Outcome) -> BenchRun:
        """Add a row, in the place of an earlier failed one of the same run, and save."""
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
