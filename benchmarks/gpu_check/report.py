"""The results: what each phase measured, next to the planner's predictions, as one JSON file and as tables."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hunyuan_local.config import GIB, ModelConfig
from hunyuan_local.durable import replacing
from hunyuan_local.planner import Machine
from hunyuan_local.planner.setup import STAGES

from .phases import Phase
from .plans import TIMES, VideoSize, predict

FORMAT = "hunyuan-local/gpu-check/2"
# What is predicted, and its key in the stages that were measured.
_MEASURED = {"gpu_bytes": "gpu_allocated_bytes", "host_bytes": "host_bytes", "seconds": "seconds"}
_WIDTH = 120


def start(card: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """A report without measurements; ``attention``, ``copies`` and ``runs`` are as in the format before."""
    empty = {"attention": None, "copies": None, "runs": []}
    return {"format": FORMAT, "card": card, "settings": settings, "phases": [], **empty}


def save(report: dict[str, Any], path: Path) -> None:
    """Write the report so far, atomically, and its table with the same name and ``.txt``.

    Raises:
        OSError: the folder cannot be written.
    """
    with replacing(path) as partial:
        partial.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".txt").write_text(as_text(report), encoding="utf-8")


def add(
    report: dict[str, Any], phase: Phase, record: dict[str, Any], seconds: float, model: ModelConfig, machine: Machine
) -> None:
    """Add a phase that ran or failed."""
    task = {key: value for key, value in phase.task.items() if key not in ("configs", "checkpoint", "folder", "output")}
    outcome = "failed" if record.get("error") else "ran"
    entry = {"name": phase.name, "outcome": outcome, "seconds": seconds, "task": task, "record": record}
    report["phases"].append(entry)
    if phase.name == "attention":
        report["attention"] = record
    if "copies" in record:
        report["copies"] = record["copies"]
    if phase.function in ("videos:make", "videos:make_several"):
        run = _run(phase, record, model, machine)
        entry["against the plan"] = run["ratios"]
        if not phase.name.startswith("memory of"):  # those have fewer blocks
            report["runs"].append(run)


def skip(report: dict[str, Any], phases: Iterable[Phase], why: str) -> None:
    """Add phases that did not run."""
    report["phases"] += [{"name": phase.name, "outcome": "not run", "why": why} for phase in phases]


def failures(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The phases that failed."""
    return [phase for phase in report["phases"] if phase["outcome"] == "failed"]


def _run(phase: Phase, record: dict[str, Any], model: ModelConfig, machine: Machine) -> dict[str, Any]:
    """A video with predicted values, measured values, and their ratios (measured / predicted; None if unknown)."""
    size, measured = VideoSize(*phase.task["size"]), {k: v for k, v in record.items() if k not in ("stage", "error")}
    predicted = predict(model, machine, size, phase.task["mode"], record.get("tiling"))
    flops = None if predicted is None else predicted.pop("flops_per_step")
    return {
        "size": str(size),
        "mode": phase.task["mode"],
        "flops_per_step": flops,
        "predicted": predicted,
        "measured": measured,
        "ratios": _ratios(predicted or {}, measured),
        "mfu": model_flops_utilisation(flops, measured.get("seconds_per_step"), machine),
        "error": record.get("error"),
    }


def model_flops_utilisation(
    flops_per_step: int | None, seconds_per_step: float | None, machine: Machine
) -> float | None:
    """Model FLOPs utilization: the model's FLOPs divided by the GPU's peak FLOPs in the same time.

    Defined as by Chowdhery et al. (PaLM, arXiv 2204.02311), with the dense bfloat16 peak in ``configs/gpus.yaml``. None
    for CPUs, and for GPUs that are not in that table or have no bfloat16.
    """
    peak = None if machine.gpu is None or machine.gpu.stands_in else machine.gpu.bf16_tflops
    if not flops_per_step or not seconds_per_step or not peak:
        return None
    return flops_per_step / (seconds_per_step * peak * 1e12)


def _ratios(predicted: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
    """Measured by predicted, by kind and stage; None where either is unknown."""
    stages = measured.get("stages", {}) | {"step": {"seconds": measured.get("seconds_per_step")}}

    def ratio(kind: str, stage: str) -> float | None:
        value, planned = stages.get(stage, {}).get(_MEASURED[kind]), (predicted.get(kind) or {}).get(stage)
        return value / planned if value is not None and planned else None

    return {
        kind: {stage: ratio(kind, stage) for stage in (TIMES if kind == "seconds" else STAGES)} for kind in _MEASURED
    }


def as_text(report: dict[str, Any]) -> str:
    """All results, in lines of at most 120 characters: a table for each phase, then what did not run."""
    card = report["card"]
    title = f"CPU, {card['cpu']['model']}" if card["gpu"] is None else card["gpu"]["name"]
    lines = [f"{title}, {card['date']}, " + ", ".join(f"{k} {card['versions'].get(k)}" for k in ("torch", "diffusers"))]
    for phase in report["phases"]:
        if phase["outcome"] != "not run":
            lines += ["", f"{phase['name']}: {phase['outcome']}, {phase['seconds']:.0f} s", *_of_phase(phase)]
    skipped = [phase for phase in report["phases"] if phase["outcome"] == "not run"]
    for why in dict.fromkeys(phase["why"] for phase in skipped):
        lines += ["", f"not run, {why}:", *(f"  {phase['name']}" for phase in skipped if phase["why"] == why)]
    return "\n".join(line if len(line) <= _WIDTH else f"{line[: _WIDTH - 3]}..." for line in lines) + "\n"


def _of_phase(phase: dict[str, Any]) -> list[str]:
    record, memory = phase["record"], phase.get("against the plan", {}).get("gpu_bytes", {})
    stages = record.get("stages", {})
    lines = _table([{"stage": name, **found, "of the plan": memory.get(name)} for name, found in stages.items()])
    if record.get("seconds_per_step") is not None:
        lines.append(f"  {_cell(record['seconds_per_step'])} s a step, {phase['task']['mode']}")
    for rows in ((record.get("copies") or {}).get("rows", []), record.get("rows", [])):
        lines += _table([row for row in rows if not row.get("error")])
        lines += [f"  {next(iter(row.values()))}: {row['error']}" for row in rows if row.get("error")]
    for name, kernels in record.get("kernels", {}).items():
        lines += [f"  ms of {name}:", *(f"    {_cell(ms):>8} {kernel}" for kernel, ms in kernels.items())]
    lines += [f"  {text}" for text in record.get("recoveries") or ()]
    lines += [f"  {name}: {why}" for name, why in record.get("problems", {}).items()]
    if record.get("error"):
        where = f" in the stage {record['error']['stage']}" if record["error"].get("stage") else ""
        lines.append(f"  ! {record['error']['type']}{where}: {record['error']['message']}")
    return lines


def _table(rows: list[dict[str, Any]]) -> list[str]:
    """Aligned columns of all keys, without those that are empty; bytes in GiB."""
    keys = list(dict.fromkeys(key for row in rows for key, value in row.items() if value is not None))
    titles = [key.removeprefix("gpu_").replace("_bytes", " GiB") for key in keys]
    table = [titles, *([_cell(row.get(key), key.endswith("_bytes")) for key in keys] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (table if rows else [])
    ]


def _cell(value: Any, is_bytes: bool = False) -> str:
    """Three significant digits, without an exponent; lists separated by spaces."""
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return " ".join(_cell(item, is_bytes) for item in value)
    if isinstance(value, bool | str) or (isinstance(value, int) and not is_bytes):
        return str(value)
    value /= GIB if is_bytes else 1
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"
