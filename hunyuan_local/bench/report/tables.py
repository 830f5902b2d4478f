"""The tables of a report, as Markdown; each row says where its figures come from. Knows nothing about files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..results.result import BenchRun, Target
from ..results.statistics import FEW_FOR_P95, STAGES, Group, Request, request_of, stage_means
from . import amounts
from .amounts import NOT_TOLD, interval, number
from .compare import compare_groups
from .markdown import code, prose, table

LABEL_LIMIT = 60
SCENARIO_LIMIT = 60
PROMPT_LIMIT = 80
ERROR_LIMIT = 600
WHERE = "Where from"
Targets = Mapping[str, Target]


def card_table(card: Mapping[str, object]) -> str:
    """The machine card, a row a fact."""
    return table(
        ["Fact", "Value"], [[code(name), code(value, 200)] for name, value in amounts.flat(dict(card)).items()]
    )


def targets_table(targets: Sequence[Target]) -> str:
    """What made the videos."""
    rows = []
    for target in targets:
        kind = amounts.mark(target) or ("the service" if amounts.is_hosted_format(target) else "this machine")
        made_by = [f"{name} {value}" for name in ("model", "profile", "device") if (value := getattr(target, name))]
        rows.append(
            [
                code(target.label, LABEL_LIMIT),
                kind,
                "yes" if target.is_billed else "no",
                code(", ".join(made_by), 120) or NOT_TOLD,
                code(target.identity, 200),
                prose(target.origin),
            ]
        )
    return table(["Backend", "Kind", "Billed", "Made by", "Identity", WHERE], rows, left=5)


def results_table(groups: Sequence[Group], targets: Targets) -> str:
    """Groups of one scenario, size and length: the whole run, a step, memory and cost."""
    header = ["Steps", "Backend", "Runs", "p50, s", "p95, s", "Mean, s", "95 % interval, s", "A step, s"]
    rows = []
    for group in groups:
        total, step, cost = (group.summaries.get(name) for name in ("total_s", "seconds_per_step", "cost_usd"))
        memory = group.values.get("peak_memory_bytes")
        weak = " (weak)" if total and total.count < FEW_FOR_P95 else ""
        of_server = " (server)" if amounts.is_hosted_format(targets.get(group.backend)) else ""
        rows.append(
            [
                _steps(group.request),
                backend_cell(group.backend, targets),
                _runs(group),
                number(total.p50) if total else NOT_TOLD,
                f"{number(total.p95)}{weak}" if total else NOT_TOLD,
                number(total.mean) if total else NOT_TOLD,
                (interval(total.low, total.high) if total else "") or NOT_TOLD,
                f"{number(step.mean)}{of_server}" if step else NOT_TOLD,
                amounts.memory(max(memory), group.memory_of) if memory else NOT_TOLD,
                amounts.usd(cost.mean) if cost else NOT_TOLD,
                where_cell(group.backend, targets),
            ]
        )
    return table([*header, "Peak memory", "Cost, USD", WHERE], rows, left=2)


def ratios_table(groups: Sequence[Group], targets: Targets) -> str | None:
    """Every group against the first target that has counted runs of the same request; None where none has two."""
    rows = []
    order = list(targets)
    for request in dict.fromkeys(group.request for group in groups):
        same = [group for group in groups if group.request == request]
        same.sort(key=lambda group: order.index(group.backend) if group.backend in order else len(order))
        first = next((group for group in same if "total_s" in group.summaries), None)
        if first is None:
            continue
        for group in same:
            if group is first:
                continue
            pair = compare_groups(first, group, ("the other one", "this one"))
            names = ("total_s", "seconds_per_step", "peak_memory_bytes", "cost_usd")
            verdict = f"no verdict: {pair.reason}" if pair.reason else pair.verdict
            rows.append(
                [
                    request_cell(request),
                    backend_cell(group.backend, targets),
                    backend_cell(first.backend, targets),
                    *(amounts.ratio(pair.ratios.get(name)) for name in names),
                    verdict,
                    where_cell(group.backend, targets),
                ]
            )
    if not rows:
        return None
    header = ["Request", "Backend", "Against", "Whole run", "A step", "Peak memory", "Cost", "Verdict", WHERE]
    return table(header, rows, left=3)


def stages_table(groups: Sequence[Group], targets: Targets) -> str | None:
    """Mean seconds of each stage that anybody tells; None where there is no time at all."""
    timed = [group for group in groups if "total_s" in group.values]
    if not timed:
        return None
    stages = [name.removesuffix("_s") for name in STAGES if any(name in group.values for group in timed)]
    rows = []
    for group in timed:
        means = stage_means(group)
        rows.append(
            [
                request_cell(group.request),
                backend_cell(group.backend, targets),
                str(group.count),
                *(number(means[name]) if name in means else NOT_TOLD for name in [*stages, "rest"]),
                number(group.summaries["total_s"].mean),
                where_cell(group.backend, targets),
            ]
        )
    return table(["Request", "Backend", "Runs", *stages, "rest", "total", WHERE], rows, left=2)


def failures_table(runs: Sequence[tuple[int, BenchRun]], targets: Targets) -> str:
    """Runs that failed or were interrupted, each with its number in the file and its reason."""
    rows = []
    for place, run in runs:
        reason = "; ".join(code(text, ERROR_LIMIT) for text in [run.error, *run.notes] if text)
        rows.append(
            [
                str(place),
                f"{run.status} warm-up" if run.kind == "warmup" else run.status,
                backend_cell(run.backend, targets),
                request_cell(request_of(run)),
                code(run.request.prompt, PROMPT_LIMIT),
                NOT_TOLD if run.request.seed is None else str(run.request.seed),
                str(run.repeat),
                where_cell(run.backend, targets),
                code(run.error_kind) or NOT_TOLD,
                reason or "no reason was written down",
            ]
        )
    header = ["Row", "Became", "Backend", "Request", "Prompt", "Seed", "Repeat", WHERE, "Kind", "Reason"]
    return table(header, rows, left=9)


def warmups_table(runs: Sequence[BenchRun], targets: Targets) -> str:
    """Runs that are in no statistics because they came first."""
    rows = []
    for run in runs:
        load, total = run.stages.load_s, run.stages.total_s
        rows.append(
            [
                backend_cell(run.backend, targets),
                request_cell(request_of(run)),
                run.status,
                NOT_TOLD if load is None else number(load),
                NOT_TOLD if total is None else number(total),
                where_cell(run.backend, targets),
            ]
        )
    return table(["Backend", "Request", "Became", "load, s", "total, s", WHERE], rows, left=3)


def backend_cell(label: str, targets: Targets) -> str:
    """The label, and the mark of what is not the service."""
    mark = amounts.mark(targets.get(label))
    return f"{code(label, LABEL_LIMIT)} ({mark})" if mark else code(label, LABEL_LIMIT)


def where_cell(label: str, targets: Targets) -> str:
    """The sentence of :attr:`Target.origin`."""
    return prose(targets[label].origin) if label in targets else "not told: no target has this label"


def request_cell(request: Request) -> str:
    """Scenario, size, frames and steps."""
    return f"{code(request.scenario, SCENARIO_LIMIT)}, {amounts.request_words(request)}"


def _steps(request: Request) -> str:
    return "the backend's" if request.num_inference_steps is None else str(request.num_inference_steps)


def _runs(group: Group) -> str:
    parts = [str(group.count)]
    parts += [f"{group.failed} failed"] if group.failed else []
    parts += [f"{group.interrupted} interrupted"] if group.interrupted else []
    return ", ".join(parts)
