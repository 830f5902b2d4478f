"""What became of one run, as whoever made it saw it, and the row that it becomes."""

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
    """One run, made or failed.

    Attributes:
        result: None if there is no video.
        error, error_kind: then why, in words and as the class of the error.
        total_s: from the call to its end, on the runner's own clock; None where that says nothing.
        notes: what was said meanwhile.
        peak_memory_bytes, memory_of: see :class:`.result.BenchRun`.
        device: what it ran on.
        tells_running: the service said how long it ran, so that what polling added is known, be it 0.
        has_loaded: the model was loaded meanwhile, so that time and memory hold that.
        continued: it is of an earlier, interrupted run of the bench, so that no time means anything.
        ends_target: no further run of this target could succeed.
        is_refused: the request would be refused each time.
    """

    result: GenerationResult | None = None
    error: str = ""
    error_kind: str = ""
    total_s: float | None = None
    notes: list[str] = field(default_factory=list)
    peak_memory_bytes: int | None = None
    memory_of: Literal["gpu", "process"] | None = None
    device: str | None = None
    tells_running: bool = False
    has_loaded: bool = False
    continued: bool = False
    ends_target: bool = False
    is_refused: bool = False


class Maker(Protocol):
    """Makes the runs of one target, one at a time."""

    target: Target
    limits: Capabilities

    def make(self, run: PlannedRun) -> Outcome:
        """Make one video.

        Raises:
            GenerationCancelledError, KeyboardInterrupt: stopped by the user; nothing is to be written down.
        """
        ...

    def close(self) -> None:
        """Give back memory and connections."""
        ...


def row_of(
    run: PlannedRun, outcome: Outcome, maker: Maker, *, started_at: str, costs: Costs | None, allow_loss: bool
) -> BenchRun:
    """The row of a run."""
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
    """Those that this kind of backend has."""
    found, total_s = result.timings, outcome.total_s
    if target.is_local:
        return Stages(
            load_s=found.load_s, encode_s=found.encode_s, denoise_s=found.denoise_s, decode_s=found.decode_s,
            write_s=found.write_s, total_s=total_s,
        )  # fmt: skip
    return Stages(
        submit_s=found.submit_s, queue_s=found.queue_s, run_s=found.run_s,
        poll_s=found.poll_s if outcome.tells_running else None,
        download_s=found.download_s, write_s=found.write_s, total_s=total_s,
    )  # fmt: skip


def _seconds_per_step(target: Target, result: GenerationResult) -> float | None:
    """Of the denoising here, of all its running at a service."""
    if target.is_local:
        found = result.timings
        return found.denoise_s / found.denoise_steps if found.denoise_steps else None
    steps = result.request.num_inference_steps
    return result.timings.run_s / steps if steps else None
