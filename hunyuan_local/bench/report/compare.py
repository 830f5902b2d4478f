"""Compares two benches, or two backends of one bench: ratios, and a verdict only if the intervals do not overlap.

Differences between machines, versions and scenarios come first, because they may explain a ratio entirely.
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
# Compared quantities and their names in tables.
COMPARED = {
    "total_s": "total, s",
    "seconds_per_step": "step, s",
    "peak_memory_bytes": "peak memory",
    "cost_usd": "cost, USD",
}
WIDTH = 80
_IRRELEVANT = ("date",)  # machine card fields that always differ and explain nothing


@dataclass(frozen=True)
class GroupComparison:
    """Two groups with the same request.

    Attributes:
        a, b: the groups.
        ratios: mean of b divided by mean of a, for each quantity that both report.
        verdict: whether b is faster or slower than a, by mean total time.
        reason: why there is no verdict; otherwise empty.
        remarks: caveats about the ratios.
    """

    a: Group
    b: Group
    ratios: dict[str, Ratio]
    verdict: Verdict
    reason: str
    remarks: list[str]

    def to_json(self) -> dict[str, Any]:
        """The comparison as JSON data."""
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
    """The comparison of two benches.

    Attributes:
        names: name and time of a and b.
        origins: origin of the numbers of a and b, one sentence per target.
        differences: sentences on differences in machine, versions, targets and scenarios, and on missing runs.
        groups: comparisons of the requests that are in both.
        only_a, only_b: groups without a counterpart in the other bench.
    """

    names: tuple[str, str]
    origins: tuple[list[str], list[str]]
    differences: list[str]
    groups: list[GroupComparison]
    only_a: list[Group]
    only_b: list[Group]

    def to_json(self) -> dict[str, Any]:
        """The comparison as JSON data."""
        return {
            "a": {"name": self.names[0], "origins": self.origins[0]},
            "b": {"name": self.names[1], "origins": self.origins[1]},
            "differences": self.differences,
            "groups": [group.to_json() for group in self.groups],
            "only_a": [group.to_json() for group in self.only_a],
            "only_b": [group.to_json() for group in self.only_b],
        }


def compare(a: BenchResult, b: BenchResult) -> Comparison:
    """Compare each group of ``a`` with the group of ``b`` that has the same request and target label.

    If each bench has exactly one target, their labels may differ, which compares two backends.
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
    """Compare two groups with the same request; ``names`` are their names in :attr:`GroupComparison.reason`."""
    remarks = _unlike(a, b)
    ratios = {}
    for name in [name for name in COMPARED if name not in remarks]:
        ratio = ratio_of_means(a.values[name], b.values[name]) if name in a.values and name in b.values else None
        if ratio is not None:
            ratios[name] = ratio
    verdict, reason = _verdict(a, b, ratios.get("total_s"), names)
    return GroupComparison(a, b, ratios, verdict, reason, list(remarks.values()))


def comparison_table(comparison: Comparison) -> str:
    """Format the comparison as text of 80 columns."""
    lines = []
    for letter, name, origins in zip("AB", comparison.names, comparison.origins, strict=True):
        lines += _wrap(name, f"{letter}: ", "   ")
        for origin in origins:
            lines += _wrap(origin, "   ", "     ")
    lines += ["", "Differences that may explain a ratio:"]
    for difference in comparison.differences or ["none recorded in the two files"]:
        lines += _wrap(difference, "- ", "  ")
    lines += ["", *_wrap("B/A is the ratio of the means with its 95 % interval; a single run has no interval.")]
    lines += _wrap(
        "There is a verdict only if both did the same work and the 95 % intervals of their mean times do not overlap."
    )
    for pair in comparison.groups:
        lines += ["", *_group_lines(pair)]
    if not comparison.groups:
        lines += ["", "The two have no group in common."]
    for letter, groups in (("A", comparison.only_a), ("B", comparison.only_b)):
        if groups:
            lines += ["", f"Only in {letter}:"]
        for group in groups:
            lines += _wrap(f"{_heading(group)}, {group.backend}: {_counts(group)}", "- ", "  ")
    return "\n".join(line.rstrip() for line in lines)


def _unlike(a: Group, b: Group) -> dict[str, str]:
    """Quantities that both report but that mean different things, so that they have no ratio; with the reason."""
    found = {}
    if all("seconds_per_step" in group.values for group in (a, b)) and len({"run_s" in g.values for g in (a, b)}) > 1:
        found["seconds_per_step"] = "no ratio of steps: one is denoising alone, the other the server's whole run time"
    kinds = {a.memory_of, b.memory_of}
    if None not in kinds and (len(kinds) > 1 or "mixed" in kinds):
        found["peak_memory_bytes"] = "no ratio of peak memory: the runs differ in GPU or process memory"
    return found


class _Interval(NamedTuple):
    low: float
    high: float


def _verdict(a: Group, b: Group, ratio: Ratio | None, names: tuple[str, str]) -> tuple[Verdict, str]:
    """Faster or slower if the intervals of the means do not overlap and the interval of the ratio excludes 1."""
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
            return "no verdict", f"{name} has a single run, so no interval"
        intervals.append(_Interval(total.low, total.high))
    first, second = intervals
    if second.low <= first.high and first.low <= second.high:
        return "no verdict", "the intervals overlap"
    if ratio is None or ratio.low is None or ratio.high is None or ratio.low <= 1 <= ratio.high:
        return "no verdict", "the interval of the ratio contains 1"
    return ("faster" if second.high < first.low else "slower"), ""


def _differences(a: BenchResult, b: BenchResult) -> Iterator[str]:
    """Sentences, the most important first."""
    if a.runs == b.runs:
        yield "both files contain exactly the same runs"
    for letter, result in (("A", a), ("B", b)):
        if not result.is_complete:
            yield f"{letter} is incomplete: planned runs are missing"
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
        first, second = flat_a.get(path, "not recorded"), flat_b.get(path, "not recorded")
        if first != second and path not in _IRRELEVANT:
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
    yield from _wrap(f"runs of A: {_counts(pair.a)}; runs of B: {_counts(pair.b)}", "  ", "  ")
    verdict = f"{pair.verdict}: {pair.reason}" if pair.reason else f"B is {pair.verdict} than A"
    yield from _wrap(verdict, "  ", "    ")
    for remark in pair.remarks:
        yield from _wrap(remark, "  ", "    ")


def _heading(group: Group) -> str:
    return f"{group.request.scenario}: {amounts.request_words(group.request)}"


def _mean(name: str, summary: GroupSummary | None) -> str:
    if summary is None:
        return amounts.UNKNOWN
    if name == "peak_memory_bytes":
        return amounts.memory(summary.mean, None)
    return amounts.usd(summary.mean) if name == "cost_usd" else amounts.number(summary.mean)


def _counts(group: Group) -> str:
    return f"{group.count} succeeded, {group.failed} failed, {group.interrupted} interrupted"


def _wrap(text: str, first: str = "", rest: str = "") -> list[str]:
    return textwrap.wrap(one_line(text), WIDTH, initial_indent=first, subsequent_indent=rest)


def _cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
