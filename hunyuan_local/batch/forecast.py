"""Estimates the time left for a batch: locally from measured step times, for a service from the time per video."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..jobs.eta import RECENT_JOBS, Cost, forecast, measure, work_of
from ..jobs.job import Job
from ..schema import GenerationRequest
from .run import Batch


def seconds_left(batch: Batch, running: Sequence[Job], workers: int) -> float | None:
    """Seconds until the last video is done; None while there are no measurements.

    Args:
        running: the running jobs, with their current progress.
        workers: number of videos generated at the same time.
    """
    recent = batch.store.find(statuses=["succeeded"], model=batch.identity, limit=RECENT_JOBS)
    measured, unfinished = measure(recent), batch.unfinished()
    if not measured and (recent or not all(_has_size(job.request) for job in unfinished)):
        # A service reports no step times: assume that each video takes the average time of the finished ones.
        took: list[float] = [job.result["timings"]["total_s"] for job in recent if job.result is not None]
        return math.ceil(len(unfinished) / workers) * sum(took) / len(took) if took else None
    costs = measured or _first_steps(running)
    at_work = {job.job_id for job in running}
    waiting = [job for job in unfinished if job.job_id not in at_work]
    left = forecast(running, waiting, costs, max(workers, len(running))).seconds_left.values()
    known = [seconds for seconds in left if seconds is not None]
    return None if len(known) < len(left) else max(known, default=0.0)


def _first_steps(running: Sequence[Job]) -> dict[int, Cost]:
    """Cost estimated from the steps of running videos, before any is finished."""
    for job in running:
        progress, steps = job.progress, job.request.num_inference_steps
        if progress is not None and progress.seconds_per_step is not None and steps is not None:
            per_voxel = progress.seconds_per_step * steps / work_of(job.request)
            return {0: Cost(step_s=per_voxel, rest_s=0.0)}
    return {}


def _has_size(request: GenerationRequest) -> bool:
    return None not in (request.width, request.height, request.num_frames, request.num_inference_steps)
