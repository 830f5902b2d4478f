"""Two benches, or two backends of one, against each other: ratios, and a verdict only where the intervals part.

What differs between the machines, the versions and the scenarios is said first, for it may be all that a ratio
shows. Knows nothing about how runs are made.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from ..results.result import BenchResult, Target
from ..results.statistics import Group, GroupSummary, Ratio, Request, ratio_of_means, summarise
from . import amounts
from .markdown import one_line

Verdict = Literal["faster", "slower", "no verdict"]
# What is compared, with its name in tables.
COMPARED = {
    "total_s": "total, s",
    "seconds_per_step": "a step, s",
    "peak_memory_bytes": "peak memory",
    "cost_usd": "cost, USD",
}
WIDTH = 80
_OF_THE_DAY = ("date",)  # of a machine card: it differs always and explains nothing


@dataclass(frozen=True)
class GroupComparison:
    """Two groups that were asked for the same.

    Attributes:
        ratios: b over a of the mean, by quantity; those that both tell.
        verdict: whether b is faster or slower than a, by the mean of the whole time.
        reason: why there is no verdict; empty where there is one.
        remarks: what has to be known with the ratios.
    """

    a: Group
    b: Group
    ratios: dict[str, Ratio]
    verdict: Verdict
    reason: str
    remarks: list[str]

    def to_json(self) -> dict[str, Any]:
        """As it stands in our JSON."""
        return {
            **self.a.request._asdict(),
            "a": self.a.to_json(),
            "b": self.b.to_json(),
            "ratios": {name: dataclasses.asdict(ratio) for name, ratio in self.ratios.items()},
            "verdict": self.verdict,
            "reason": self.reason,
            "remarks": self.remarks,
        }


@dataclass(frozen=True)
class Comparison:
    """Two benches.

    Attributes:
        names: of a and b, in words.
        origins: where the figures of a and of b come from, one sentence a target.
        differences: of machine, versions, targets and scenarios, and what is missing, in sentences.
        groups: what was asked for in both.
        only_a, only_b: groups that the other one does not have.
    """

    names: tuple[str, str]
    origins: tuple[list[str], list[str]]
    differences: list[str]
    groups: list[GroupComparison]
    only_a: list[Group]
    only_b: list[Group]

    def to_json(self) -> dict[str, Any]:
        """As it stands in our JSON."""
        return {
            "a": {"name": self.names[0], "origins": self.origins[0]},
            "b": {"name": self.names[1], "origins": self.origins[1]},
            "differences": self.differences,
            "groups": [group.to_json() for group in self.groups],
            "only_a": [group.to_json() for group in self.only_a],
            "only_b": [group.to_json() for group in self.only_b],
        }


def compare(a: BenchResult, b: BenchResult) -> Comparison:
    """Every group of ``a`` against the one of ``b`` that was asked for the same, at the target of the same label.

    With exactly one target in each, their labels may differ: so two backends are compared.
    """
    groups_a, groups_b = summarise(a.runs), summarise(b.runs)
    across = len(a.targets) == 1 and len(b.targets) == 1

    def key(group: Group) -> tuple[str, Request]:
        return ("" if across else group.backend, group.request)

    by_key = {key(group): group for group in groups_b}
    pairs = [(group, by_key[key(group)]) for group in groups_a if key(group) in by_key]
    known = {key(group) for group, _ in pairs}
    return Comparison(
        names=(f"{a.name}, {a.created_at}", f"{b.name}, {b.created_at}"),
        origins=(_origins(a), _origins(b)),
        differences=list(_differences(a, b)),
        groups=[compare_groups(*pair) for pair in pairs],
        only_a=[group for group in groups_a if key(group) not in known],
        only_b=[group for group in groups_b if key(group) not in known],
    )


def compare_groups(a: Group, b: Group, names: tuple[str, str] = ("A", "B")) -> GroupComparison:
    """One group against another; both were asked for the same. ``names`` are what a reason calls them."""
    remarks = _unlike(a, b)
    ratios = {}
    for name in [name for name in COMPARED if name not in remarks]:
        ratio = ratio_of_means(a.values[name], b.values[name]) if name in a.values and name in b.values else None
        if ratio is not None:
            ratios[name] = ratio
    verdict, reason = _verdict(a, b, ratios.get("total_s"), names)
    return GroupComparison(a, b, ratios, verdict, reason, list(remarks.values()))


def comparison_table(comparison: Comparison) -> str:
    """The comparison as text of 80 columns."""
    lines = []
    for letter, name, origins in zip("AB", comparison.names, comparison.origins, strict=True):
        lines += _wrap(name, f"{letter}: ", "   ")
        for origin in origins:
            lines += _wrap(origin, "   ", "     ")
    lines += ["", "What differs and may be all that a ratio shows:"]
    for difference in comparison.differences or ["nothing that the two files tell of"]:
        lines += _wrap(difference, "- ", "  ")
    lines += ["", *_wrap("B/A is the ratio of the means with its 95 % interval; one run has none.")]
    lines += _wrap("A verdict is given where both did the same work and the 95 % intervals of their mean times part.")
    for pair in comparison.groups:
        lines += ["", *_group_lines(pair)]
    if not comparison.groups:
        lines += ["", "No group is in both."]
    for letter, groups in (("A", comparison.only_a), ("B", comparison.only_b)):
        if groups:
            lines += ["", f"Only in {letter}:"]
        for group in groups:
            lines += _wrap(f"{_heading(group)}, {group.backend}: {_counts(group)}", "- ", "  ")
    return "\n".join(line.rstrip() for line in lines)


def _unlike(a: Group, b: Group) -> dict[str, str]:
    """Quantities that both tell and that are not the same thing, so that no ratio is made; with the reason."""
    found = {}
    if all("seconds_per_step" in group.values for group in (a, b)) and len({"run_s" in g.values for g in (a, b)}) > 1:
        found["seconds_per_step"] = "a step is denoising alone in one and all that a server does in the other: no ratio"
    kinds = {a.memory_of, b.memory_of}
    if None not in kinds and (len(kinds) > 1 or "mixed" in kinds):
        found["peak_memory_bytes"] = "peak memory is not of the same thing in both, GPU or process: no ratio"
    return found


class _Interval(NamedTuple):
    low: float
    high: float


def _verdict(a: Group, b: Group, ratio: Ratio | None, names: tuple[str, str]) -> tuple[Verdict, str]:
    """Faster or slower where the intervals of the means part, and the ratio's own does not hold 1."""
    named = tuple(zip(names, (a, b), strict=True))
    for name, group in named:
        if "total_s" not in group.summaries:
            return "no verdict", f"{name} has no run that succeeded"
    if len({*a.works, *b.works}) > 1:
        made = [f"{name} made {' and '.join(map(amounts.request_words, group.works))}" for name, group in named]
        return "no verdict", f"not the same work: {'; '.join(made)}"
    intervals = []
    for name, group in named:
        total = group.summaries["total_s"]
        if total.low is None or total.high is None:
            return "no verdict", f"{name} has one run, which has no interval"
        intervals.append(_Interval(total.low, total.high))
    first, second = intervals
    if second.low <= first.high and first.low <= second.high:
        return "no verdict", "the intervals overlap"
    if ratio is None or ratio.low is None or ratio.high is None or ratio.low <= 1 <= ratio.high:
        return "no verdict", "the interval of the ratio holds 1"
    return ("faster" if second.high < first.low else "slower"), ""


def _differences(a: BenchResult, b: BenchResult) -> Iterator[str]:
    """Sentences, the weightiest first."""
    if a.runs == b.runs:
        yield "both files hold the very same runs"
    for letter, result in (("A", a), ("B", b)):
        if not result.is_complete:
            yield f"{letter} is not complete: runs of its plan are missing"
    yield from _leaves("machine", a.machine, b.machine)
    if len(a.targets) == 1 and len(b.targets) == 1:
        pairs = [(a.targets[0], b.targets[0])]
    else:
        in_b = {target.label: target for target in b.targets}
        pairs = [(target, in_b[target.label]) for target in a.targets if target.label in in_b]
    for target, other in pairs:
        yield from _leaves(f"target {target.label}", target.model_dump(), other.model_dump())
    yield from _leaves("scenarios", a.scenarios, b.scenarios)
    if a.repeats != b.repeats:
        yield f"repeats: {a.repeats} in A, {b.repeats} in B"


def _leaves(name: str, a: dict[str, Any], b: dict[str, Any]) -> Iterator[str]:
    flat_a, flat_b = amounts.flat(a), amounts.flat(b)
    for path in dict.fromkeys([*flat_a, *flat_b]):
        first, second = flat_a.get(path, "not told"), flat_b.get(path, "not told")
        if first != second and path not in _OF_THE_DAY:
            yield f"{name}, {path}: {_cut(first)} in A, {_cut(second)} in B"


def _origins(result: BenchResult) -> list[str]:
    return [f"{_marked(target)}: {target.origin}" for target in result.targets]


def _marked(target: Target) -> str:
    mark = amounts.mark(target)
    return f"{target.label} ({mark})" if mark else target.label


def _group_lines(pair: GroupComparison) -> Iterator[str]:
    yield from _wrap(_heading(pair.a))
    if pair.a.backend != pair.b.backend:
        yield from _wrap(f"A is {pair.a.backend}, B is {pair.b.backend}", "  ", "  ")
    else:
        yield from _wrap(pair.a.backend, "  ", "  ")
    if any(name in group.summaries for name in COMPARED for group in (pair.a, pair.b)):
        yield f"  {'':<11}  {'mean of A':>14}  {'mean of B':>14}  B/A [95 % interval]"
    for name, title in COMPARED.items():
        a, b = (group.summaries.get(name) for group in (pair.a, pair.b))
        if a or b:
            cells = [_mean(name, summary) for summary in (a, b)]
            yield f"  {title:<11}  {cells[0]:>14}  {cells[1]:>14}  {amounts.ratio(pair.ratios.get(name))}"
    yield from _wrap(f"runs of A: {_counts(pair.a)}; of B: {_counts(pair.b)}", "  ", "  ")
    verdict = f"{pair.verdict}: {pair.reason}" if pair.reason else f"B is {pair.verdict} than A"
    yield from _wrap(verdict, "  ", "    ")
    for remark in pair.remarks:
        yield from _wrap(remark, "  ", "    ")


def _heading(group: Group) -> str:
    return f"{group.request.scenario}: {amounts.request_words(group.request)}"


def _mean(name: str, summary: GroupSummary | None) -> str:
    if summary is None:
        return amounts.NOT_TOLD
    if name == "peak_memory_bytes":
        return amounts.memory(summary.mean, None)
    return amounts.usd(summary.mean) if name == "cost_usd" else amounts.number(summary.mean)


def _counts(group: Group) -> str:
    return f"{group.count} succeeded, {group.failed} failed, {group.interrupted} interrupted"


def _wrap(text: str, first: str = "", rest: str = "") -> list[str]:
    return textwrap.wrap(one_line(text), WIDTH, initial_indent=first, subsequent_indent=rest)


def _cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
