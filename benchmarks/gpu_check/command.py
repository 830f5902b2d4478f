"""The command line and main function of ``scripts/gpu_check``."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hunyuan_local.config import cache_dir
from hunyuan_local.config.tiling import Tiling
from hunyuan_local.errors import ConfigError, HunyuanLocalError, OutputExistsError

from . import apart, report
from .card import file_name, machine_of
from .checkpoint import FULL_SIZE, model_config, provide, read_configs, without_weights
from .trials import Trial, VideoSize, choose_trials, expected_seconds, find_plans, parse_video_size, with_tiling

RESULTS = Path(__file__).resolve().parents[1] / "results"
# The model's lower and higher training resolutions, and a short, smaller clip.
FULL_SIZES = (VideoSize(512, 320, 61), VideoSize(960, 544, 129), VideoSize(1280, 720, 129))
QUICK_SIZES = (VideoSize(512, 320, 17),)
FULL_STEPS, QUICK_STEPS = 3, 2

DESCRIPTION = """\
Measures this machine's GPU on the 13 B model with random weights: nothing is downloaded.

Runs every mode that fits according to the planner, at each size, in a separate process. Measures peak memory,
seconds per step, and seconds to load, encode and decode, next to the planner's predictions, and MFU, the
share of the GPU's peak FLOP/s that the model reaches. First compares the attention kernels that work here.

The file is written after every run, so an interrupted check keeps its results. Exit codes: 0 success;
1 a run failed, see the file; 2 bad input, or no CUDA device; 6 no mode fits according to the planner.
"""


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the options; those for a dry run without a GPU are hidden from the help."""
    parser = argparse.ArgumentParser(
        prog="scripts/gpu_check", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one small size, two steps, one mode per kind of offload")
    parser.add_argument(
        "--size",
        type=parse_video_size,
        action="append",
        metavar="WxHxFRAMES",
        help="size to measure instead of the defaults; can be repeated",
    )
    parser.add_argument(
        "--mode", action="append", default=[], help="only this mode, whether it fits or not; can be repeated"
    )
    parser.add_argument("--steps", type=int, help="denoising steps, at least 2; the first does not count")
    parser.add_argument(
        "--timeout", type=float, default=120, metavar="MINUTES", help="time limit per run (default: 120)"
    )
    parser.add_argument(
        "--work-dir", type=Path, default=cache_dir() / "gpu-check", help="folder for the random checkpoint, about 43 GB"
    )
    parser.add_argument("--keep", action="store_true", help="keep the random checkpoint for the next check")
    parser.add_argument("--output", type=Path, help="JSON file (default: benchmarks/results/<gpu>.json)")
    parser.add_argument("--overwrite", action="store_true", help="replace the results of an earlier check")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help=argparse.SUPPRESS)
    parser.add_argument("--architecture", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--task", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Run the script; returns its exit code."""
    path: Path | None = None
    try:
        options = parse_arguments(arguments)
        if options.task is not None:
            return apart.do(options.task)
        card, path = _prepare(options)
        return _check(options, card, path)
    except HunyuanLocalError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        kept = f"; the results so far are in {path}" if path is not None and path.exists() else ""
        print(f"interrupted{kept}", file=sys.stderr)
        return 130


def _prepare(options: argparse.Namespace) -> tuple[dict[str, Any], Path]:
    """Check the options and the machine before anything is written; return the machine card and the output file.

    Raises:
        ConfigError: no CUDA device, too few steps, or a GPU that cannot be queried.
        OutputExistsError: the output file exists.
    """
    if options.device == "cuda":
        from hunyuan_local.pipeline.memory.device import why_no_gpu

        if (problem := why_no_gpu()) is not None:
            raise ConfigError(f"device='cuda': {problem}; this check needs a CUDA device")
    if options.steps is not None and options.steps < 2:
        raise ConfigError(f"steps={options.steps}: must be at least 2, because the first does not count")
    if options.output is not None:
        _check_output(options.output, options.overwrite)
    card = apart.run({"kind": "card", "device": options.device}, 600)
    if card.get("error"):
        raise ConfigError(f"device={options.device!r}: cannot be described: {card['error']['message']}")
    if options.device == "cuda" and card["gpu"] is None:
        raise ConfigError("device='cuda': there is no NVIDIA driver (libcuda); other GPUs are not supported")
    path = options.output or RESULTS / file_name(card)
    _check_output(path, options.overwrite)
    return card, path


def _check_output(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise OutputExistsError(
            f"output={str(path)!r}: already exists; add --overwrite, or choose another file (--output)"
        )
    if not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        raise ConfigError(
            f"output={str(path)!r}: its folder must exist and be writable; choose another file (--output)"
        )


def _check(options: argparse.Namespace, card: dict[str, Any], path: Path) -> int:
    """Run all measurements, and write the file after each.

    Raises:
        GpuMemoryError: no mode fits at any size.
        ConfigError: the disk is too small for the random checkpoint.
    """
    # 1. Plan which modes fit, and create the weights.
    sizes = options.size or (QUICK_SIZES if options.quick else FULL_SIZES)
    steps = options.steps or (QUICK_STEPS if options.quick else FULL_STEPS)
    configs = read_configs(options.architecture or FULL_SIZE)
    machine = machine_of(card)
    with without_weights(configs) as model:
        plans = find_plans(model, machine, sizes)
    trials = choose_trials(plans, options.quick, options.mode)
    if not trials:
        plans[sizes[0]].require_choice()
    settings = {"quick": options.quick, "steps": steps, "sizes": list(map(str, sizes)), "modes": options.mode}
    found = report.start(card, settings, plans)

    folder = provide(options.work_dir, configs, _say, 60 * options.timeout)
    try:
        # 2. Measure the attention kernels, and copies between main memory and the GPU.
        minutes = expected_seconds(trials, steps) / 60
        _say(f"runs: {len(trials)}, about {minutes:.0f} minutes plus loading; results go to {path}")
        tokens = sorted({trial.size.tokens for trial in trials})
        found["attention"] = _attention(options, configs["transformer"], tokens)
        found["copies"] = apart.run({"kind": "copies", "device": options.device}, 60 * options.timeout)
        report.save(found, path)

        # 3. Measure the whole pipeline in each mode.
        for number, trial in enumerate(trials, 1):
            _say(f"run {number} of {len(trials)}: {trial.mode} at {trial.size}")
            record = _measure(options, folder, trial, steps)
            if record.get("tiling") is not None:
                trial = with_tiling(trial, model_config(folder), machine, Tiling(**record["tiling"]))
            found["runs"].append(report.entry(trial, record, machine))
            report.save(found, path)
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    print(report.as_text(found), end="")
    return 1 if report.failures(found) else 0


def _attention(options: argparse.Namespace, transformer: dict[str, Any], tokens: list[int]) -> dict[str, Any]:
    shape = {"heads": transformer["num_attention_heads"], "head_dim": transformer["attention_head_dim"]}
    task = {"kind": "attention", "device": options.device, "tokens": tokens, **shape}
    return apart.run(task, 60 * options.timeout)


def _measure(options: argparse.Namespace, folder: Path, trial: Trial, steps: int) -> dict[str, Any]:
    size = [trial.size.width, trial.size.height, trial.size.num_frames]
    task = {"kind": "mode", "device": options.device, "checkpoint": str(folder), "mode": trial.mode, "size": size}
    return apart.run(task | {"steps": steps}, 60 * options.timeout)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
