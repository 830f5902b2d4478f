"""What the rows of a bench say: groups of runs, their mean with an interval, and ratios of two means.

A group is what one backend made of one request, whatever the prompt and the seed: those are its samples. Only
measured runs that succeeded are counted; failed and interrupted ones are numbers beside. Knows nothing about
files, and scipy is imported only where an interval is made.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .result import BenchRun, Stages

CONFIDENCE = 0.95
FEW_FOR_P95 = 20  # with fewer runs, p95 lies between the two largest: it says little beyond the largest
# In the order in which they pass: writing is the last of every backend.
STAGES = (*(name for name in Stages.model_fields if name not in ("write_s", "total_s")), "write_s")
QUANTITIES = ("total_s", *STAGES, "seconds_per_step", "peak_memory_bytes", "cost_usd")


class Request(NamedTuple):
    """What a group was asked for, with the scenario's name; None is left to the backend."""

    scenario: str
    width: int | None
    height: int | None
    num_frames: int | None
    num_inference_steps: int | None


class Work(NamedTuple):
    """What was really made: the file's size and frames, the steps, and whether each step was done twice (true CFG)."""

    width: int | None
    height: int | None
    num_frames: int | None
    num_inference_steps: int | None
    is_doubled: bool


@dataclass(frozen=True)
class GroupSummary:
    """One quantity of a group, in the quantity's unit.

    Attributes:
        p50, p95: percentiles, linear between the two nearest runs (numpy's ``linear``); of fewer than
            ``FEW_FOR_P95`` runs p95 is near the largest one, whatever the distribution.
        mean: of the ``count`` runs that tell it.
        low, high: the 95 % interval of the mean by Student's t; None below two runs.
    """

    p50: float
    p95: float
    mean: float
    low: float | None
    high: float | None
    count: int


@dataclass(frozen=True)
class Ratio:
    """The mean of b over the mean of a, and its 95 % interval; None where one of them is a single run."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Group:
    """All measured runs of one request at one backend.

    Attributes:
        backend: the label of its target.
        count: runs that succeeded; ``failed`` and ``interrupted`` are in no figure.
        values: by quantity, what each counted run tells of it, in the order of the runs; a run that does not
            tell it is left out.
        summaries: by quantity; a quantity that no run tells is not there.
        works: what the counted runs really made; more than one if they differ.
        memory_of: whose memory; ``mixed`` if the runs differ in that.
    """

    backend: str
    request: Request
    count: int
    failed: int
    interrupted: int
    values: Mapping[str, tuple[float, ...]] = field(repr=False)
    summaries: Mapping[str, GroupSummary]
    works: tuple[Work, ...]
    memory_of: str | None

    def to_json(self) -> dict[str, Any]:
        """The group as it stands in our JSON; without the single runs."""
        head = {"backend": self.backend, **self.request._asdict()}
        head |= {"count": self.count, "failed": self.failed, "interrupted": self.interrupted}
        head |= {"memory_of": self.memory_of} if self.memory_of else {}
        return head | {name: dataclasses.asdict(summary) for name, summary in self.summaries.items()}


def summarise(runs: Sequence[BenchRun]) -> list[Group]:
    """Groups of the measured runs: by request in the order of first appearance, within that by backend likewise."""
    measured = [run for run in runs if run.kind == "measured"]
    requests = list(dict.fromkeys(request_of(run) for run in measured))
    backends = list(dict.fromkeys(run.backend for run in measured))
    sorted_runs: dict[tuple[str, Request], list[BenchRun]] = {}
    for run in measured:
        sorted_runs.setdefault((run.backend, request_of(run)), []).append(run)
    keys = [(backend, request) for request in requests for backend in backends if (backend, request) in sorted_runs]
    return [_group(*key, sorted_runs[key]) for key in keys]


def request_of(run: BenchRun) -> Request:
    """What the run's group was asked for."""
    asked = run.request
    return Request(run.scenario, asked.width, asked.height, asked.num_frames, asked.num_inference_steps)


def values_of(run: BenchRun) -> dict[str, float]:
    """What one run tells, by quantity; what is unknown, or no finite number, is not there."""
    told = run.stages.model_dump() | {
        "seconds_per_step": run.seconds_per_step,
        "peak_memory_bytes": run.peak_memory_bytes,
        "cost_usd": run.cost_usd,
    }
    return {name: told[name] for name in QUANTITIES if told[name] is not None and math.isfinite(told[name])}


def summary_of(values: Sequence[float]) -> GroupSummary:
    """Percentiles, and the mean with its interval: mean ± t(0.975, n - 1) · s / sqrt(n), s the sample's deviation.

    Source: NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.5.2, "Confidence Limits for the Mean". The runs
    are taken to be independent and near a normal distribution, which a few repeats cannot show.

    Args:
        values: at least one, all finite.
    """
    import numpy

    p50, p95 = (float(value) for value in numpy.percentile(values, [50, 95], method="linear"))
    mean = float(statistics.mean(values))  # exact in between: neither the order nor rounding matters
    if len(values) < 2:
        return GroupSummary(p50, p95, mean, None, None, len(values))
    half = _t(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return GroupSummary(p50, p95, mean, mean - half, mean + half, len(values))


def ratio_of_means(a: Sequence[float], b: Sequence[float]) -> Ratio | None:
    """The mean of ``b`` over the mean of ``a``, with a 95 % interval by the delta method on the logarithm.

    log(mean b / mean a) ± t · sqrt(ra + rb), where r = s² / (n · mean²) is the squared relative error of each mean
    (Casella and Berger, Statistical Inference, 2nd edition, 5.5.4), and t has the degrees of freedom of Welch and
    Satterthwaite, (ra + rb)² / (ra² / (na - 1) + rb² / (nb - 1)) (Biometrics Bulletin 2, 1946, 110-114). Unlike
    Fieller's, this interval always has two positive ends; it is an approximation, for relative errors well below 1. In
    simulations of 2 to 30 runs that scatter by 2 to 30 % it held the true ratio in 94.4 to 97.8 % of 3,000 cases each.
    The runs are taken as unpaired: what drifts and hits both alike only widens it.

    Returns:
        None where a mean is not above 0, such as the ratio of two costs of nothing.
    """
    mean_a, mean_b = float(statistics.mean(a)), float(statistics.mean(b))
    if mean_a <= 0 or mean_b <= 0:
        return None
    value = mean_b / mean_a
    if len(a) < 2 or len(b) < 2:
        return Ratio(value, None, None)
    errors = [(statistics.stdev(values) / mean) ** 2 / len(values) for values, mean in ((a, mean_a), (b, mean_b))]
    whole = sum(errors)
    if whole == 0:
        return Ratio(value, value, value)
    freedom = whole**2 / sum(error**2 / (len(values) - 1) for error, values in zip(errors, (a, b), strict=True))
    factor = math.exp(_t(freedom) * math.sqrt(whole))
    return Ratio(value, value / factor, value * factor)


def stage_means(group: Group) -> dict[str, float]:
    """Mean seconds of each stage over all counted runs, a run that does not tell it counting as 0; then ``rest``.

    They sum to the mean of the whole run, unless stages overlap: then ``rest`` is below 0.
    """
    counted = len(group.values["total_s"])
    means = {name.removesuffix("_s"): sum(group.values[name]) / counted for name in STAGES if name in group.values}
    return means | {"rest": group.summaries["total_s"].mean - sum(means.values())}


def _t(degrees_of_freedom: float) -> float:
    """The two-sided critical value of Student's t."""
    from scipy.special import stdtrit  # what scipy.stats.t.ppf calls, without the second that importing it takes

    return float(stdtrit(degrees_of_freedom, (1 + CONFIDENCE) / 2))


def _group(backend: str, request: Request, runs: Sequence[BenchRun]) -> Group:
    counted = [run for run in runs if run.counts]
    told = [values_of(run) for run in counted]
    values = {name: tuple(run[name] for run in told if name in run) for name in QUANTITIES}
    values = {name: numbers for name, numbers in values.items() if numbers}
    kinds = {run.memory_of for run in counted if run.peak_memory_bytes is not None}
    return Group(
        backend=backend,
        request=request,
        count=len(counted),
        failed=sum(run.status == "failed" for run in runs),
        interrupted=sum(run.status == "interrupted" for run in runs),
        values=values,
        summaries={name: summary_of(numbers) for name, numbers in values.items()},
        works=tuple(dict.fromkeys(_work(run) for run in counted)),
        memory_of=None if not kinds else kinds.pop() if len(kinds) == 1 else "mixed",
    )


def _work(run: BenchRun) -> Work:
    """What the file holds, as far as it is known; else what was said to be made, else what was asked for."""
    made = run.made or run.request
    shape = run.video or made
    doubled = made.true_cfg_scale > 1
    return Work(shape.width, shape.height, shape.num_frames, made.num_inference_steps, doubled)
