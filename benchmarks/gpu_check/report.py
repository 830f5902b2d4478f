"""The results: measured and predicted values with ratios and MFU, as one JSON file and as tables."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

from hunyuan_local.config import GIB
from hunyuan_local.durable import replacing
from hunyuan_local.planner import Machine, Plan

from .trials import Trial, VideoSize

FORMAT = "hunyuan-local/gpu-check/1"
STAGES = ("load", "encode", "denoise", "decode")
_WIDTH = 80


def start(card: dict[str, Any], settings: dict[str, Any], plans: dict[VideoSize, Plan]) -> dict[str, Any]:
    """A report without measurements."""
    return {
        "format": FORMAT,
        "card": card,
        "settings": settings,
        "plans": {str(size): _plan(found) for size, found in plans.items()},
        "attention": None,
        "copies": None,
        "runs": [],
    }


def save(report: dict[str, Any], path: Path) -> None:
    """Write the report so far, atomically.

    Raises:
        OSError: the folder cannot be written.
    """
    with replacing(path) as partial:
        partial.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def entry(trial: Trial, record: dict[str, Any], machine: Machine) -> dict[str, Any]:
    """One run of the report: predicted values, measured values, and their ratios.

    Ratios are measured / predicted; None if one of the two is unknown.
    """
    measured = {key: value for key, value in record.items() if key not in ("stage", "error")}
    return {
        "size": str(trial.size),
        "mode": trial.mode,
        "flops_per_step": trial.flops_per_step,
        "predicted": trial.predicted,
        "measured": measured,
        "ratios": _ratios(trial.predicted or {}, measured),
        "mfu": model_flops_utilisation(trial.flops_per_step, measured.get("seconds_per_step"), machine),
        "error": record.get("error"),
    }


def model_flops_utilisation(flops_per_step: int, seconds_per_step: float | None, machine: Machine) -> float | None:
    """Model FLOPs utilization: the model's FLOPs divided by the GPU's peak FLOPs in the same time.

    Defined as by Chowdhery et al. (PaLM, arXiv 2204.02311), with the dense bfloat16 peak in ``configs/gpus.yaml``. None
    for CPUs, and for GPUs that are not in that table or have no bfloat16.
    """
    if not seconds_per_step or machine.gpu is None or machine.gpu.stands_in or not machine.gpu.bf16_tflops:
        return None
    return flops_per_step / (seconds_per_step * machine.gpu.bf16_tflops * 1e12)


def failures(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs that failed."""
    return [run for run in report["runs"] if run["error"]]


def as_text(report: dict[str, Any]) -> str:
    """All results, in lines of at most 80 characters."""
    lines = _heading(report["card"])
    for size in dict.fromkeys(run["size"] for run in report["runs"]):
        runs = [run for run in report["runs"] if run["size"] == size]
        lines += ["", f"{size}, {runs[0]['flops_per_step'] / 1e12:.3g} TFLOP per step", *_measured_table(runs)]
        lines += ["", "measured / predicted", *_ratio_table(runs)]
        lines += [_cut(f"! {run['mode']}: {_failure(run['error'])}", 3 * _WIDTH) for run in runs if run["error"]]
    lines += _attention_table(report["attention"] or {})
    lines += _copies_table(report.get("copies") or {})
    return "\n".join(line for long in lines for line in _wrapped(long)) + "\n"


def _plan(found: Plan) -> dict[str, Any]:
    return {
        "choice": None if found.choice is None else found.choice.name,
        "flops_per_step": found.flops_per_step,
        "does_not_fit": {item.name: item.reason for item in found.modes if not item.fits},
        "assumptions": list(found.assumptions),
    }


def _ratios(predicted: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
    stages = measured.get("stages", {})
    seconds = {name: stages.get(name, {}).get("seconds") for name in ("encode", "decode")}
    seconds["step"] = measured.get("seconds_per_step")
    return {
        kind: {
            stage: _ratio(stages.get(stage, {}).get(key), (predicted.get(kind) or {}).get(stage)) for stage in STAGES
        }
        for kind, key in (("gpu_bytes", "gpu_allocated_bytes"), ("host_bytes", "host_bytes"))
    } | {
        "seconds": {name: _ratio(value, (predicted.get("seconds") or {}).get(name)) for name, value in seconds.items()}
    }


def _ratio(measured: float | None, predicted: float | None) -> float | None:
    return None if measured is None or not predicted else measured / predicted


def _heading(card: dict[str, Any]) -> list[str]:
    gpu, versions = card["gpu"], card["versions"]
    host = "" if card["host_memory_bytes"] is None else f", {card['host_memory_bytes'] / GIB:.0f} GiB"
    lines = [f"{card['cpu']['model']}, {card['cpu']['cores']} cores{host}"]
    if gpu is not None:
        lines.insert(
            0, f"{gpu['name']}, {gpu['memory_bytes'] / GIB:.1f} GiB, driver {gpu['driver']}, CUDA {gpu['cuda']}"
        )
    return [*lines, ", ".join(f"{name} {versions[name]}" for name in ("torch", "diffusers", "transformers"))]


def _measured_table(runs: list[dict[str, Any]]) -> list[str]:
    lines = [f"{'mode':<24}{'GPU GiB':>8}{'host':>7}{'load s':>8}{'encode':>8}{'s/step':>8}{'decode':>8}{'MFU':>6}"]
    for run in runs:
        measured = run["measured"]
        stages = measured.get("stages", {})
        gpu = [stage["gpu_allocated_bytes"] for stage in stages.values() if stage["gpu_allocated_bytes"] is not None]
        host = [stage["host_bytes"] for stage in stages.values()]
        seconds = [stages.get(name, {}).get("seconds") for name in ("load", "encode")]
        seconds += [measured.get("seconds_per_step"), stages.get("decode", {}).get("seconds")]
        lines.append(
            f"{_cut(run['mode'], 23):<24}"
            + f"{_number(max(gpu, default=None), GIB):>8}{_number(max(host, default=None), GIB):>7}"
            + "".join(f"{_number(value):>8}" for value in seconds)
            + f"{'-' if run['mfu'] is None else format(run['mfu'], '.0%'):>6}"
            + (" !" if run["error"] else "")
        )
    return lines


def _ratio_table(runs: list[dict[str, Any]]) -> list[str]:
    """Ratios table; memory is GPU memory if there is a GPU."""
    on_gpu = any(ratio is not None for run in runs for ratio in run["ratios"]["gpu_bytes"].values())
    lines = [f"{'mode':<24}{'memory: ' + STAGES[0]:>14}" + "".join(f"{stage:>8}" for stage in STAGES[1:])]
    lines[0] += f"{'s: enc.':>8}{'step':>5}{'dec.':>5}"
    for run in runs:
        memory = run["ratios"]["gpu_bytes" if on_gpu else "host_bytes"]
        seconds = run["ratios"]["seconds"]
        lines.append(
            f"{_cut(run['mode'], 23):<24}{_number(memory['load']):>14}"
            + "".join(f"{_number(memory[stage]):>8}" for stage in STAGES[1:])
            + f"{_number(seconds['encode']):>8}{_number(seconds['step']):>5}{_number(seconds['decode']):>5}"
        )
    return lines


def _attention_table(attention: dict[str, Any]) -> list[str]:
    """Milliseconds per call, and TFLOP/s."""
    lines = []
    if attention.get("rows"):
        lines = ["", f"attention, {attention['heads']} heads x {attention['head_dim']}"]
        lines.append(f"{'tokens':>8}  {'kernel':<18}{'ms':>10}{'TFLOP/s':>10}")
    for row in attention.get("rows", ()):
        figures = row.get("error") or f"{row['milliseconds']:>10.4g}{row['tflops']:>10.3g}"
        lines.append(f"{row['tokens']:>8}  {row['kernel']:<18}{_cut(figures, 50)}")
    lines += [_cut(f"{name}: {why}", 2 * _WIDTH) for name, why in attention.get("problems", {}).items()]
    if attention.get("error"):
        lines.append(f"! attention: {_failure(attention['error'])}")
    return lines


def _copies_table(copies: dict[str, Any]) -> list[str]:
    """Median GB/s of each kind of copy."""
    lines = ["", "copies, GB/s"] if copies.get("rows") else []
    lines += [f"{row['way']:<50}{_number(row['median']):>8}" for row in copies.get("rows", ())]
    if copies.get("error"):
        lines.append(f"! copies: {_failure(copies['error'])}")
    return lines


def _failure(error: dict[str, Any]) -> str:
    where = f" in the stage {error['stage']}" if error.get("stage") else ""
    return f"{error['type']}{where}: {error['message']}"


def _number(value: float | None, unit: float = 1) -> str:
    """Three significant digits, without an exponent."""
    if value is None:
        return "-"
    value /= unit
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _wrapped(line: str) -> list[str]:
    return [line] if len(line) <= _WIDTH else textwrap.wrap(line, _WIDTH, subsequent_indent="  ")
