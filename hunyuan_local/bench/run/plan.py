"""The runs of a bench and their order.

The outer loop is over repeats, then requests, then targets. The order of targets rotates by one with each request and
each repeat, so that drift, such as a warming machine or a service's load, affects all targets alike. Warm-ups come
first, one target after another.

The module does not depend on how runs are executed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ...errors import ConfigError
from ...schema import GenerationRequest
from ..results.result import BenchRun, Target
from .scenarios import ScenarioFile

MAX_RUNS = 10_000  # the whole result file is rewritten after each run
Key = tuple[str, str, GenerationRequest, str, int]


@dataclass(frozen=True)
class PlannedRun:
    """One planned run.

    Attributes:
        label: label of its target.
        scenario: name of its scenario.
        request: what to generate.
        number: index of the request in the scenario file.
        repeat: counted from 0.
        kind: warm-up or measured run.
    """

    label: str
    scenario: str
    request: GenerationRequest
    number: int
    repeat: int
    kind: Literal["warmup", "measured"] = "measured"

    @property
    def key(self) -> Key:
        """Unique key of the run in its bench; the same as :func:`key_of` its row."""
        return self.label, self.scenario, self.request, self.kind, self.repeat

    @property
    def file_name(self) -> str:
        """File name of its video in the target's folder; stays the same when the bench is resumed."""
        return f"{self.number:03}-{_slug(self.scenario)}-{self.kind}-{self.repeat}.mp4"


def key_of(run: BenchRun) -> Key:
    """The key of the planned run that a row belongs to."""
    return run.backend, run.scenario, run.request, run.kind, run.repeat


def folder_name(target: Target) -> str:
    """Folder name of a target's videos; unique per label."""
    slug = _slug(target.label)
    return slug if slug == target.label else f"{slug}-{hashlib.sha256(target.label.encode()).hexdigest()[:6]}"


def check_number(file: ScenarioFile, backends: Sequence[str], repeats: int) -> None:
    """Refuse a bench without runs, or with more than ``MAX_RUNS``.

    Args:
        backends: the name of each target's backend.

    Raises:
        ConfigError: there are no runs or too many; the message has the number.
    """
    runs = repeats * sum(
        scenario.count for scenario in file.scenarios for name in backends if name in (scenario.backends or [name])
    )
    if runs == 0:
        wanted = sorted({name for scenario in file.scenarios for name in scenario.backends})
        raise ConfigError(
            f"backends: no scenario of {file.name} includes {', '.join(backends)}; they include {', '.join(wanted)}"
        )
    if runs > MAX_RUNS:
        raise ConfigError(
            f"{runs} runs ({sum(scenario.count for scenario in file.scenarios)} requests, {repeats} repeats, "
            f"{len(backends)} backends): a bench has at most {MAX_RUNS}; remove some, or split the bench"
        )


def measured_runs(file: ScenarioFile, targets: Sequence[Target], repeats: int) -> list[PlannedRun]:
    """Every measured run of the bench, in the order that the module describes."""
    requests = [(scenario, request) for scenario in file.scenarios for request in scenario.requests()]
    runs = []
    for repeat in range(repeats):
        for number, (scenario, request) in enumerate(requests):
            first = (repeat + number) % len(targets)
            for target in (*targets[first:], *targets[:first]):
                if not scenario.backends or target.backend in scenario.backends:
                    runs.append(PlannedRun(target.label, scenario.name, request, number, repeat))
    return runs


def missing_runs(
    planned: Iterable[PlannedRun], rows: Iterable[BenchRun], *, retry_failed: bool = False
) -> list[PlannedRun]:
    """The planned runs without a row; with ``retry_failed`` also those with a failed row."""
    there = {key_of(row) for row in rows if not (retry_failed and row.status == "failed")}
    return [run for run in planned if run.key not in there]


def warmup_runs(
    file: ScenarioFile,
    targets: Iterable[Target],
    planned: Sequence[PlannedRun],
    rows: Sequence[BenchRun],
    *,
    retry_failed: bool = False,
) -> list[PlannedRun]:
    """The warm-ups still to run: one set per size and length, with the fewest steps.

    A resumed bench has a new local process, which needs warm-ups again, but only for the remaining runs; these
    warm-ups add further rows. A service has no such process, so its warm-ups run once.

    Args:
        planned: every measured run.
        rows: existing rows.
        retry_failed: as for the measured runs.
    """
    missing = missing_runs(planned, rows, retry_failed=retry_failed)
    found: list[PlannedRun] = []
    for target in targets:
        if target.is_local:
            for run in _shapes(run for run in missing if run.label == target.label):
                warm = replace(run, kind="warmup")
                made = sum(key_of(row)[:4] == warm.key[:4] for row in rows)
                found += [replace(warm, repeat=made + again) for again in range(file.warmup.local)]
        else:
            all_of_them = [
                replace(run, kind="warmup", repeat=again)
                for run in _shapes(run for run in planned if run.label == target.label)
                for again in range(file.warmup.hosted)
            ]
            found += missing_runs(all_of_them, rows, retry_failed=retry_failed)
    return found


def _shapes(runs: Iterable[PlannedRun]) -> list[PlannedRun]:
    """The run with the fewest steps of each size and length."""
    fewest: dict[tuple[int | None, ...], PlannedRun] = {}
    for run in runs:
        shape = (run.request.width, run.request.height, run.request.num_frames)
        if shape not in fewest or _steps(run) < _steps(fewest[shape]):
            fewest[shape] = run
    return list(fewest.values())


def _steps(run: PlannedRun) -> int:
    assert run.request.num_inference_steps is not None  # required in a scenario
    return run.request.num_inference_steps


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")[:60] or "x"
