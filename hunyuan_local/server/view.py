"""What can be said of a job from outside, whatever dialect it is asked for in."""

from __future__ import annotations

from datetime import UTC, datetime

from ..jobs.job import FINISHED, Job
from ..schema import JobView, Progress

# Percent that each stage begins with and the steps of which fill the rest up to the next one.
_STAGES = {"load": (0, 0), "encode": (1, 1), "denoise": (2, 95), "decode": (95, 99), "write": (99, 99)}

# Before a job is asked for again: half of what is left, but a second at most, and a hundredth of what was waited for
# so far at least. So the end is seen with little delay, and the asking costs the machine that does the work little.
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 1.0
_FIRST_PAUSE_S = 0.1  # where nobody knows what is left; then a third of what was waited for so far

_COMPUTATION = ("encode_s", "denoise_s", "decode_s", "write_s")


def percent_of(progress: Progress | None) -> int:
    """How far a running job is, from 0 to 99; it never falls within an attempt.

    Denoising takes nearly all of the time, so it has nearly all of the percents.
    """
    if progress is None:
        return 0
    first, last = _STAGES.get(progress.stage, (0, 0))
    return first + (last - first) * min(progress.step, progress.total) // max(progress.total, 1)


def view_of(job: Job, *, eta_s: float | None, outputs: tuple[str, ...], ttl_s: int) -> JobView:
    """The state of a job.

    Args:
        eta_s: seconds left, if known.
        outputs: where its file is, or the file itself; left out unless it has succeeded.
        ttl_s: seconds for which they work.
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
        # Without loading, which the job pays that happens to be the first.
        inference_s=None if timings is None else sum(timings[stage] for stage in _COMPUTATION),
        seed=result.get("seed", job.request.seed),
        nsfw=_nsfw(job),
    )


def _nsfw(job: Job) -> tuple[bool, ...]:
    """The verdict of the safety check on the one video of a job, also on one that it has withheld; empty without."""
    if job.failure == "moderation":
        return (True,)
    verdict = (job.result or {}).get("safety")
    return () if verdict is None else (verdict["flagged"],)


def pause_s(view: JobView, now: datetime) -> float:
    """Seconds after which it is worth the while to ask for a job again."""
    if view.status in FINISHED:
        return _LONGEST_PAUSE_S
    assert view.created_at is not None  # only what a service tells of a job may lack it
    waited_s = max(0.0, (now - view.created_at).total_seconds())
    wanted_s = max(_FIRST_PAUSE_S, waited_s / 3) if view.eta_s is None else max(view.eta_s / 2, waited_s / 100)
    return min(_LONGEST_PAUSE_S, max(_SHORTEST_PAUSE_S, wanted_s))


def _percent(job: Job) -> int:
    if job.status == "succeeded":
        return 100
    # One that waits again after an interruption begins anew, or from a saved step that nobody knows yet.
    return 0 if job.status == "queued" else percent_of(job.progress)


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
