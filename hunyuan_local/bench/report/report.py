"""Writes the report of a bench in GitHub Markdown: what was measured, how, and what was not.

It lets a sceptical reader check the results: the machine and the method come before the numbers, every row names its
origin, and every failure is listed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...durable import replacing
from ...errors import ConfigError
from ..results.result import LOADED, BenchResult, BenchRun
from ..results.statistics import CONFIDENCE, FEW_FOR_P95, STAGES, Group, Request, request_of, summarise
from . import amounts, plots
from . import tables as tables
from .compare import COMPARED
from .markdown import code

if TYPE_CHECKING:
    import jinja2

_TEMPLATE = Path(__file__).with_name("report.md.j2")
_MAX_PROMPTS = 20  # per scenario; the JSON file has all of them
_LOAD_SHARE = 0.1  # of the total time; above it a run counts as one that loaded its model
_SETTINGS = ("negative_prompt", "guidance_scale", "true_cfg_scale", "flow_shift", "fps")


def write_report(result: BenchResult, folder: Path) -> Path:
    """Write ``report.md`` and ``plots/``, replacing older ones.

    Args:
        folder: created if it does not exist.

    Returns:
        The path of the report.

    Raises:
        ConfigError: a file cannot be written; an older report stays unchanged.
    """
    made = plots.make_plots(result, folder / "plots")
    page = _template().render(_content(result, made), code=code, number=amounts.number)
    path = folder / "report.md"
    try:
        with replacing(path) as partial:
            partial.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"report {path}: cannot be written: {error.strerror or error}; check the disk and the folder"
        ) from error
    return path


@cache
def _template() -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))


def summary_json(result: BenchResult) -> dict[str, Any]:
    """Summary of the bench: counts, origins, and the compared quantities of each group."""
    wanted = ("count", "failed", "interrupted", "memory_of", "backend", *Request._fields, *COMPARED)
    groups = [group.to_json() for group in summarise(result.runs)]
    return {
        "name": result.name,
        "is_complete": result.is_complete,
        "runs": _counts(result.runs),
        "targets": [
            {"label": target.label, "origin": target.origin, "is_billed": target.is_billed} for target in result.targets
        ],
        "groups": [{name: value for name, value in group.items() if name in wanted} for group in groups],
    }


def _content(result: BenchResult, made: dict[str, Path | str]) -> dict[str, Any]:
    """Variables of the template, with untrusted text escaped."""
    targets = {target.label: target for target in result.targets}
    groups = summarise(result.runs)
    bad = [(i, run) for i, run in enumerate(result.runs, start=1) if run.status != "succeeded"]
    warmups = [run for run in result.runs if run.kind == "warmup"]
    return {
        "result": result,
        "counts": _counts(result.runs),
        "machine": code(amounts.machine_name(result.machine)),
        "card": tables.card_table(result.machine),
        "targets": tables.targets_table(result.targets),
        "scenarios": list(_scenarios(result.runs)),
        "costs": list(_cost_sources(result.runs)),
        "sections": list(_sections(groups, targets, _cold_runs(result.runs))),
        "ratios": tables.ratios_table(groups, targets),
        "stages": tables.stages_table(groups, targets),
        "plots": {name: item.name for name, item in made.items() if isinstance(item, Path)},
        "failures": tables.failures_table(bad, targets) if bad else None,
        "warmups": tables.warmups_table(warmups, targets) if warmups else None,
        "remarks": list(_remarks(result.runs)),
        "not_measured": list(_not_measured(result, groups, made)),
        "confidence": f"{100 * CONFIDENCE:g} %",
        "few": FEW_FOR_P95,
        "prompt_limit": tables.PROMPT_LIMIT,
        "error_limit": tables.ERROR_LIMIT,
    }


def _counts(runs: Sequence[BenchRun]) -> dict[str, int]:
    measured = Counter(run.status for run in runs if run.kind == "measured")
    warmups = [run for run in runs if run.kind == "warmup"]
    found = {status: measured[status] for status in ("succeeded", "failed", "interrupted")}
    return found | {"warmups": len(warmups), "failed_warmups": sum(run.status == "failed" for run in warmups)}


def _scenarios(runs: Sequence[BenchRun]) -> Iterator[str]:
    """The requests, one line per scenario."""
    for name in dict.fromkeys(run.scenario for run in runs):
        asked = list(dict.fromkeys(run.request for run in runs if run.scenario == name and run.kind == "measured"))
        prompts = list(dict.fromkeys(request.prompt for request in asked))
        sizes = dict.fromkeys(amounts.size(request.width, request.height) for request in asked)
        parts = [f"size {', '.join(sizes)}"]
        for field in ("num_frames", "num_inference_steps", "seed", *_SETTINGS):
            given = dict.fromkeys(getattr(request, field) for request in asked)
            if field in _SETTINGS and not set(given) - {None, 1.0 if field == "true_cfg_scale" else None}:
                continue
            parts.append(
                f"{field} {', '.join('left to the backend' if v is None else code(str(v), 60) for v in given)}"
            )
        shown = ", ".join(code(prompt, 200) for prompt in prompts[:_MAX_PROMPTS])
        more = f" and {len(prompts) - _MAX_PROMPTS} more" if len(prompts) > _MAX_PROMPTS else ""
        if asked:
            yield f"{code(name, 100)}: {'; '.join(parts)}; prompt{'s' * (len(prompts) > 1)} {shown}{more}"


def _cost_sources(runs: Sequence[BenchRun]) -> Iterator[str]:
    known = dict.fromkeys((run.backend, run.cost_source) for run in runs if run.cost_usd is not None)
    for backend, source in known:
        yield f"{code(backend, 100)}: {code(source, 300) or 'source not recorded'}"


def _sections(
    groups: Sequence[Group], targets: tables.Targets, cold: Mapping[tuple[str, Request], int]
) -> Iterator[dict[str, Any]]:
    """One table per scenario, size and length, with remarks on runs that deviate from the request."""
    places: dict[Request, list[Group]] = {}
    for group in groups:
        places.setdefault(group.request._replace(num_inference_steps=None), []).append(group)
    for request, own in places.items():
        title = f"{code(request.scenario, 100)}, {amounts.request_words(request, with_steps=False)}"
        yield {
            "title": title,
            "table": tables.results_table(own, targets),
            "remarks": [*_made_otherwise(own), *_loaded(own, cold)],
        }


def _made_otherwise(groups: Sequence[Group]) -> Iterator[str]:
    for group in groups:
        same = [work for work in group.works if work[:4] == group.request[1:]]
        if len(same) != len(group.works):
            made = " and ".join(map(amounts.request_words, group.works))
            yield f"requested {amounts.request_words(group.request)}; {code(group.backend, 100)} generated {made}"


def _cold_runs(runs: Sequence[BenchRun]) -> Counter[tuple[str, Request]]:
    """Number of counted runs per group that loaded the model, by their notes or their load time."""
    return Counter((run.backend, request_of(run)) for run in runs if run.counts and _is_cold(run))


def _is_cold(run: BenchRun) -> bool:
    load_s, total_s = run.stages.load_s or 0.0, run.stages.total_s or 0.0
    return any(note.startswith(LOADED) for note in run.notes) or load_s > _LOAD_SHARE * total_s


def _loaded(groups: Sequence[Group], cold: Mapping[tuple[str, Request], int]) -> Iterator[str]:
    """Remarks on groups with runs that loaded the model, which a mean over all runs hides."""
    for group in groups:
        if count := cold.get((group.backend, group.request)):
            label = code(group.backend, 100)
            yield (
                f"{label} loaded its model in {count} of {group.count} runs; their times, memory and cost include "
                "loading, which a warm-up avoids"
            )


def _remarks(runs: Sequence[BenchRun]) -> Iterator[str]:
    """Losses and notes of the backends, each with its number of runs."""
    losses = Counter((run.backend, loss, True) for run in runs for loss in run.losses)
    notes = Counter((run.backend, note, False) for run in runs if run.status == "succeeded" for note in run.notes)
    for (backend, text, is_loss), count in (losses | notes).items():
        what = "dropped or changed" if is_loss else "note"
        yield f"{code(backend, 100)}, {count} run{'s' * (count > 1)}, {what}: {code(text, 300)}"


def _not_measured(result: BenchResult, groups: Sequence[Group], made: dict[str, Path | str]) -> Iterator[str]:
    """What is missing from the report, and why."""
    if not result.is_complete:
        yield "the whole plan: this bench is incomplete, and missing runs have no row"
    names = {target.backend for target in result.targets}
    for scenario in result.scenarios.get("scenarios", []):
        if (wanted := scenario.get("backends")) and not names & set(wanted):
            yield f"scenario {code(scenario['name'], 100)}: only for {', '.join(wanted)}, which this bench lacks"
    for target in result.targets:
        label = code(target.label, 100)
        own = [group for group in groups if group.backend == target.label]
        if not own:
            yield f"{label}: no measured run"
            continue
        if amounts.mark(target):
            yield f"the service itself: {label} is another server in the service's format"
        known = {name for group in own for name in group.summaries}
        if not any(group.count for group in own):
            yield f"{label}: none of its {sum(group.failed + group.interrupted for group in own)} runs counts"
            continue
        if "peak_memory_bytes" not in known:
            yield f"peak memory at {label}: its runs do not report it"
        if "cost_usd" not in known:
            yield f"cost at {label}: {_no_cost(result, target.label)}"
        missing = [name.removesuffix("_s") for name in STAGES if name not in known]
        if missing:
            yield f"stages that {label} does not have or does not report: {', '.join(missing)}"
    for name, reason in made.items():
        if isinstance(reason, str):
            yield f"the plot {code(name)}: {reason}"
    yield "throughput: requests ran one at a time"
    yield "the quality of the videos: only times, memory and cost are compared"


def _no_cost(result: BenchResult, label: str) -> str:
    sources = dict.fromkeys(run.cost_source for run in result.runs if run.backend == label and run.cost_source)
    return ", ".join(code(source, 300) for source in sources) or "its price is unknown"
