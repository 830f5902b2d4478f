"""The state of a job as clients see it, independent of the dialect."""

from __future__ import annotations

from datetime import UTC, datetime

from ..jobs.job import FINISHED, Job
from ..schema import JobView, Progress

# Percent at the start and at the end of each stage; the steps of the stage fill the range.
_STAGES = {"load": (0, 0), "encode": (1, 1), "denoise": (2, 95), "decode": (95, 99), "write": (99, 99)}

# Polling interval: half of the time left, at most 1 s, and at least 1 % of the time waited so far. So the end is
# noticed with little delay, and polling costs the busy machine little.
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 1.0
_FIRST_PAUSE_S = 0.1  # while the time left is unknown; then a third of the time waited so far

_COMPUTATION = ("encode_s", "denoise_s", "decode_s", "write_s")


def percent_of(progress: Progress | None) -> int:
    """Progress of a running job in percent, from 0 to 99; never decreases within an attempt.

    Denoising takes nearly all of the time, so it gets nearly all of the range.
    """
    if progress is None:
        return 0
    first, last = _STAGES.get(progress.stage, (0, 0))
    return first + (last - first) * min(progress.step, progress.total) // max(progress.total, 1)


def view_of(job: Job, *, eta_s: float | None, outputs: tuple[str, ...], ttl_s: int) -> JobView:
    """The state of a job.

    Args:
        eta_s: seconds left, if known.
        outputs: URL or base64 of its file; ignored unless the job has succeeded.
        ttl_s: validity of ``outputs`` in seconds.
    """
    succeeded = job.status == "succeeded"
    result = job.result or {}
    timings = result.get("timings")
    return JobView(
        job_id=job.job_id,
        status=job.status,
        request=job.request,
        created_at=_moment(job.created_at),
        completed_at=_moment(job.finished_at),
        progress_percent=_percent(job),
        eta_s=None if job.is_finished or eta_s is None else max(0.0, eta_s),
        outputs=outputs if succeeded else (),
        output_ttl_s=ttl_s if succeeded else None,
        error=job.error,
        failure=job.failure,
        # Without loading, which only the first job pays.
        inference_s=None if timings is None else sum(timings[stage] for stage in _COMPUTATION),
        seed=result.get("seed", job.request.seed),
        nsfw=_nsfw(job),
        model=result.get("model") or job.origin.get("model", ""),
    )


def _nsfw(job: Job) -> tuple[bool, ...]:
    """The safety check's verdict on a job's video, also if it was withheld; empty without a check."""
    if job.failure == "moderation":
        return (True,)
    verdict = (job.result or {}).get("safety")
    return () if verdict is None else (verdict["flagged"],)


def pause_s(view: JobView, now: datetime) -> float:
    """Recommended seconds until the next poll of a job."""
    if view.status in FINISHED:
        return _LONGEST_PAUSE_S
    assert view.created_at is not None  # missing only in answers of hosted services
    waited_s = max(0.0, (now - view.created_at).total_seconds())
    wanted_s = max(_FIRST_PAUSE_S, waited_s / 3) if view.eta_s is None else max(view.eta_s / 2, waited_s / 100)
    return min(_LONGEST_PAUSE_S, max(_SHORTEST_PAUSE_S, wanted_s))


def _percent(job: Job) -> int:
    if job.status == "succeeded":
        return 100
    # After an interruption, a waiting job starts over or resumes from a saved step; which one is not known yet.
    return 0 if job.status == "queued" else percent_of(job.progress)


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
