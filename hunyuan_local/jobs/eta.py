"""Estimates the seconds until a job is done, from measured step times; None without measurements.

The model: one step costs time in proportion to width x height x num_frames, and twice that with true
classifier-free guidance. Measurements of jobs of the same size are used directly; others are scaled. The time to load
a model, and other load on the machine, are not part of the estimate.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..schema import GenerationRequest, Timings
from .job import Job
from .store import JobStore

RECENT_JOBS = 20  # number of finished jobs to measure
_MOST_QUEUED = 1000
_FRESH_S = 1.0


@dataclass(frozen=True)
class Cost:
    """Measured seconds per voxel (pixel x frame): ``step_s`` per transformer pass, ``rest_s`` for the other stages."""

    step_s: float
    rest_s: float

    def rest_of(self, request: GenerationRequest) -> float:
        """Seconds for all stages but denoising."""
        return self.rest_s * _voxels(request)

    def total_of(self, request: GenerationRequest) -> float:
        """Seconds for the whole job: step_s x voxels x passes + rest_s x voxels."""
        return self.step_s * work_of(request) + self.rest_of(request)


def measure(finished: Iterable[Job]) -> dict[int, Cost]:
    """The cost by size in voxels, with the average over all sizes under key 0; empty without measurements.

    Skips jobs that were resumed after an interruption, since their timings cover only a part of the steps.
    """
    groups: dict[int, list[tuple[float, float, int, int]]] = {}
    for job in finished:
        if job.status != "succeeded" or job.result is None:
            continue
        timings = Timings(**job.result["timings"])
        if timings.denoise_steps != job.request.num_inference_steps:
            continue
        rest_s = timings.encode_s + timings.decode_s + timings.write_s
        voxels = _voxels(job.request)
        row = (timings.denoise_s, rest_s, work_of(job.request), voxels)
        for size in (0, voxels):
            groups.setdefault(size, []).append(row)
    totals = {size: [sum(column) for column in zip(*rows, strict=True)] for size, rows in groups.items()}
    return {size: Cost(step_s / work, rest_s / voxels) for size, (step_s, rest_s, work, voxels) in totals.items()}


@dataclass(frozen=True)
class Forecast:
    """Seconds left by job id, and until the first waiting job starts, which frees a place; None means unknown."""

    seconds_left: dict[str, float | None]
    seconds_to_place: float | None


def forecast(
    running: Sequence[Job], queued: Sequence[Job], costs: dict[int, Cost], workers: int, now: float | None = None
) -> Forecast:
    """Simulate the queue: each worker takes the next job as soon as it is free.

    Args:
        queued: in queue order.
        workers: number of workers, idle or busy.
        now: seconds since 1970; None uses the running jobs' last reports as they are.
    """
    left = {job.job_id: _left_of(job, _cost_of(job.request, costs), now) for job in running}
    known = all(seconds is not None for seconds in left.values())
    free = [seconds for seconds in left.values() if seconds is not None] + [0.0] * (workers - len(running))
    heapq.heapify(free)
    to_place = free[0] if known and free else None
    for job in queued:
        cost = _cost_of(job.request, costs)
        if not (known and free and cost):
            known = False  # an unknown duration makes the start of all later jobs unknown
            left[job.job_id] = None
            continue
        end = heapq.heappop(free) + cost.total_of(job.request)
        heapq.heappush(free, end)
        left[job.job_id] = end
    return Forecast(left, to_place)


def _left_of(job: Job, cost: Cost | None, now: float | None) -> float | None:
    reported = _at_last_report(job, cost)
    if reported is None or now is None:
        return reported
    assert job.lease_until is not None and job.lease_s is not None  # it runs
    reported_at = job.lease_until - job.lease_s  # each heartbeat renews the lease for lease_s
    return max(0.0, reported - max(0.0, now - reported_at))


def _at_last_report(job: Job, cost: Cost | None) -> float | None:
    """Seconds that were left at the job's last heartbeat."""
    progress = job.progress
    if progress is not None and progress.stage == "denoise" and progress.seconds_left is not None:
        return progress.seconds_left + (cost.rest_of(job.request) if cost else 0.0)
    if cost is None:
        return None
    if progress is not None and progress.stage in ("decode", "write"):
        done = 1.0 if progress.stage == "write" else progress.step / progress.total if progress.total else 0.0
        return cost.rest_of(job.request) * (1 - done)
    return cost.total_of(job.request)


class Forecaster:
    """Forecasts for one model's jobs in a store, recomputed at most once a second."""

    def __init__(self, store: JobStore, model: str, clock: Callable[[], float] = time.monotonic):
        self._store, self._model, self._clock = store, model, clock
        self._worker_reports = store.worker_reports
        self._lock = threading.Lock()
        self._made_at = -_FRESH_S
        self._made = Forecast({}, None)

    def seconds_left(self, job: Job) -> float | None:
        """Seconds until the job is done; None also for a finished job, or a job of another model."""
        if job.is_finished or job.model != self._model:
            return None
        left = self._fresh(job.job_id).seconds_left.get(job.job_id)
        return None if left is None else max(0.0, left - (self._clock() - self._made_at))

    def seconds_to_place(self) -> float | None:
        """Seconds until the first waiting job starts, which frees a place in the queue."""
        return self._fresh().seconds_to_place

    def _fresh(self, job_id: str | None = None) -> Forecast:
        with self._lock:
            is_old = self._clock() - self._made_at >= _FRESH_S
            # A job newer than the last forecast. If that one is at its limit, the job may also be beyond the limit.
            is_new = job_id not in self._made.seconds_left and len(self._made.seconds_left) < _MOST_QUEUED
            if is_old or (job_id is not None and is_new):
                self._made, self._made_at = self._make(), self._clock()
            return self._made

    def _make(self) -> Forecast:
        running = self._store.find(statuses=["running"], model=self._model, oldest_first=True)
        queued = self._store.find(statuses=["queued"], model=self._model, oldest_first=True, limit=_MOST_QUEUED)
        recent = self._store.find(statuses=["succeeded"], model=self._model, limit=RECENT_JOBS)
        workers = sum(report.model == self._model for report in self._worker_reports.recent())
        now = self._store.database.clock()
        return forecast(running, queued, measure(recent), max(workers, len(running)), now)


def _cost_of(request: GenerationRequest, costs: dict[int, Cost]) -> Cost | None:
    return costs.get(_voxels(request), costs.get(0))


def _voxels(request: GenerationRequest) -> int:
    width, height, num_frames = request.width, request.height, request.num_frames
    assert width is not None and height is not None and num_frames is not None  # filled in from the model's defaults
    return width * height * num_frames


def _passes(request: GenerationRequest) -> int:
    """Number of transformer passes; true classifier-free guidance needs two per step."""
    assert request.num_inference_steps is not None  # filled in from the model's defaults
    return request.num_inference_steps * (2 if request.true_cfg_scale > 1 and request.negative_prompt else 1)


def work_of(request: GenerationRequest) -> int:
    """The work of denoising a request: voxels x transformer passes."""
    return _voxels(request) * _passes(request)
