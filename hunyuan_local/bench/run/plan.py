"""Which runs a bench is made of, in which order.

Repeats are outermost, then requests, then targets; and the targets take turns at being first, by one with each
request and with each repeat. So whatever drifts meanwhile, such as a machine that gets warm or a service's load, hits
all targets alike, and no target always runs after the same other one. Warm-ups come first, target by target.
Knows nothing about how a run is made.
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

MAX_RUNS = 10_000  # after each of which the whole file of results is written anew
Key = tuple[str, str, GenerationRequest, str, int]


@dataclass(frozen=True)
class PlannedRun:
    """One run to be made; ``number`` is its request's place in the file, ``label`` its target's."""

    label: str
    scenario: str
    request: GenerationRequest
    number: int
    repeat: int
    kind: Literal["warmup", "measured"] = "measured"

    @property
    def key(self) -> Key:
        """What tells it from all others of the bench; see :func:`key_of`."""
        return self.label, self.scenario, self.request, self.kind, self.repeat

    @property
    def file_name(self) -> str:
        """Of its video, in a folder of its target; the same whenever the bench goes on."""
        return f"{self.number:03}-{_slug(self.scenario)}-{self.kind}-{self.repeat}.mp4"


def key_of(run: BenchRun) -> Key:
    """The key of the planned run that a row is of."""
    return run.backend, run.scenario, run.request, run.kind, run.repeat


def folder_name(target: Target) -> str:
    """Of a target's videos; no two labels have the same."""
    slug = _slug(target.label)
    return slug if slug == target.label else f"{slug}-{hashlib.sha256(target.label.encode()).hexdigest()[:6]}"


def check_number(file: ScenarioFile, backends: Sequence[str], repeats: int) -> None:
    """Refuse a bench without a run, or with more than a bench is made for.

    Args:
        backends: the name of each target's backend.

    Raises:
        ConfigError: says how many there would be.
    """
    runs = repeats * sum(
        scenario.count for scenario in file.scenarios for name in backends if name in (scenario.backends or [name])
    )
    if runs == 0:
        wanted = sorted({name for scenario in file.scenarios for name in scenario.backends})
        raise ConfigError(
            f"backends: no scenario of {file.name} is for {', '.join(backends)}; all are for {', '.join(wanted)}"
        )
    if runs > MAX_RUNS:
        raise ConfigError(
            f"{runs} runs ({sum(scenario.count for scenario in file.scenarios)} requests, {repeats} repeats, "
            f"{len(backends)} backends): a bench has at most {MAX_RUNS}; take some out, or make several benches of them"
        )


def measured_runs(file: ScenarioFile, targets: Sequence[Target], repeats: int) -> list[PlannedRun]:
    """Every measured run of the bench, in its order; see the top of this file."""
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
    """Those that have no row yet, or, to be made again, a failed one."""
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
    """The warm-ups that have yet to be made: of each size and length, at the fewest steps.

    A bench that goes on has a new local process, which is warmed up again, for the runs that are left alone; these
    warm-ups are further rows. At a service nothing gets warm by waiting, so there each is made once.

    Args:
        planned: every measured run.
        rows: what there is.
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
    """One run of each size and length, that of the fewest steps."""
    fewest: dict[tuple[int | None, ...], PlannedRun] = {}
    for run in runs:
        shape = (run.request.width, run.request.height, run.request.num_frames)
        if shape not in fewest or _steps(run) < _steps(fewest[shape]):
            fewest[shape] = run
    return list(fewest.values())


def _steps(run: PlannedRun) -> int:
    assert run.request.num_inference_steps is not None  # a scenario gives them
    return run.request.num_inference_steps


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")[:60] or "x"
