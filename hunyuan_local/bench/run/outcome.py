"""The outcome of one run as its maker reports it, and the row of the result file built from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from ...capabilities import Capabilities, fit
from ...schema import GenerationResult
from ..results.result import BenchRun, Stages, Target
from .costs import Costs, hosted_cost, local_cost
from .plan import PlannedRun


@dataclass(frozen=True)
class Outcome:
    """The outcome of one run, successful or failed.

    Attributes:
        result: the generated video; None if the run failed.
        error, error_kind: message and class of the error, if the run failed.
        total_s: duration of the whole call on the maker's clock; None if it is not meaningful.
        notes: notes of the backend during the run.
        peak_memory_bytes, memory_of: see :class:`.result.BenchRun`.
        device: device that the run used.
        reports_run_time: whether the service reported its run time; only then is ``poll_s`` known, even if it is 0.
        has_loaded: whether the model was loaded during the run, so that time and memory include loading.
        continued: whether the run resumed a task of an earlier, interrupted bench, so that its times are meaningless.
        ends_target: whether every further run of this target would fail too.
        is_refused: whether the request is invalid, so that every repeat would be refused.
    """

    result: GenerationResult | None = None
    error: str = ""
    error_kind: str = ""
    total_s: float | None = None
    notes: list[str] = field(default_factory=list)
    peak_memory_bytes: int | None = None
    memory_of: Literal["gpu", "process"] | None = None
    device: str | None = None
    reports_run_time: bool = False
    has_loaded: bool = False
    continued: bool = False
    ends_target: bool = False
    is_refused: bool = False


class Maker(Protocol):
    """Executes the runs of one target, one at a time."""

    target: Target
    limits: Capabilities

    def make(self, run: PlannedRun) -> Outcome:
        """Generate one video.

        Raises:
            GenerationCancelledError, KeyboardInterrupt: stopped by the user; the run is not recorded.
        """
        ...

    def close(self) -> None:
        """Free memory and close connections."""
        ...


def row_of(
    run: PlannedRun, outcome: Outcome, maker: Maker, *, started_at: str, costs: Costs | None, allow_loss: bool
) -> BenchRun:
    """Build the row of a run from its outcome."""
    result, target = outcome.result, maker.target
    losses = [loss.note for loss in fit(run.request, target.backend, maker.limits).losses] if allow_loss else []
    said = [*outcome.notes, *(result.notes if result else [])]
    row = BenchRun(
        backend=target.label,
        scenario=run.scenario,
        request=run.request,
        repeat=run.repeat,
        kind=run.kind,
        status="failed",
        error=outcome.error,
        error_kind=outcome.error_kind,
        started_at=started_at,
        losses=losses if result else [],
        notes=[note for note in dict.fromkeys(said) if note not in losses],
        stages=Stages(total_s=outcome.total_s),
        peak_memory_bytes=outcome.peak_memory_bytes,
        memory_of=outcome.memory_of,
    )
    if result is None:
        return row
    cost_usd, cost_source = _cost(maker, outcome, costs)
    return row.model_copy(
        update={
            "status": "interrupted" if outcome.continued else "succeeded",
            "made": result.request,
            "stages": Stages() if outcome.continued else _stages(target, result, outcome),
            "seconds_per_step": None if outcome.continued else _seconds_per_step(target, result),
            "cost_usd": cost_usd,
            "cost_source": cost_source,
            "video": result.video,
        }
    )


def _cost(maker: Maker, outcome: Outcome, costs: Costs | None) -> tuple[float | None, str]:
    if not maker.target.is_local:
        return hosted_cost(maker.limits, maker.target.is_billed)
    return local_cost(costs, outcome.total_s or 0.0)


def _stages(target: Target, result: GenerationResult, outcome: Outcome) -> Stages:
    """The stages that this kind of backend has."""
    found, total_s = result.timings, outcome.total_s
    if target.is_local:
        return Stages(
            load_s=found.load_s, encode_s=found.encode_s, denoise_s=found.denoise_s, decode_s=found.decode_s,
            write_s=found.write_s, total_s=total_s,
        )  # fmt: skip
    return Stages(
        submit_s=found.submit_s, queue_s=found.queue_s, run_s=found.run_s,
        poll_s=found.poll_s if outcome.reports_run_time else None,
        download_s=found.download_s, write_s=found.write_s, total_s=total_s,
    )  # fmt: skip


def _seconds_per_step(target: Target, result: GenerationResult) -> float | None:
    """Seconds per step: of denoising for a local video, of the whole run time at a service."""
    if target.is_local:
        found = result.timings
        return found.denoise_s / found.denoise_steps if found.denoise_steps else None
    steps = result.request.num_inference_steps
    return result.timings.run_s / steps if steps else None
