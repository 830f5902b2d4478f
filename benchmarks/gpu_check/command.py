"""The command line and main function of ``scripts/gpu_check``."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hunyuan_local.config import ModelConfig, cache_dir, configs_dir, load_model_config
from hunyuan_local.errors import ConfigError, HunyuanLocalError, OutputExistsError
from hunyuan_local.video.output import check_folder
from hunyuan_local.weights.download import free_bytes

from . import process, report
from .phases import FULL, TOY, USUAL_MINUTES, Phase, Phases, Scale, in_minutes
from .plans import file_name, machine_of, read_configs, without_weights

RESULTS = Path(__file__).resolve().parents[1] / "results"
LEAST_S = 15.0  # with less time left, no further phase begins
DISK_BYTES = 5_000_000_000  # of the random weights, which hold one block of each kind, and of the videos

DESCRIPTION = """\
Measures this machine's GPU on the 13 B model with random weights: nothing is downloaded.

Phases run in the order of their worth, each in a separate process with a time limit, until the minutes are over:
the machine, attention kernels, transformer blocks, whole videos, compilation, the memory of smaller cards, caches,
quantization, offload, sparse attention, then every mode that the planner says fits, next to its predictions.

The file is written after every phase, so an interrupted check keeps its results. Exit codes: 0 success;
1 a phase failed, see the file; 2 bad input, or no CUDA device.
"""


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the options; those for a dry run without a GPU are hidden from the help."""
    parser = argparse.ArgumentParser(
        prog="scripts/gpu_check", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--minutes", type=float, default=USUAL_MINUTES,
        help=f"time for the whole check (default: {USUAL_MINUTES:g}); with more, each phase gets more",
    )  # fmt: skip
    parser.add_argument("--model", metavar="PATH_OR_ID", help="also generate a real video with these weights")
    parser.add_argument(
        "--phase", action="append", default=[], metavar="NAME",
        help="only this phase, or a mode at a size, such as 'group+tiling at 512x320x61'; can be repeated",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="list the phases for this machine, and measure only it")
    parser.add_argument(
        "--work-dir", type=Path, default=cache_dir() / "gpu-check", help="folder for about 4 GB of files"
    )
    parser.add_argument("--output", type=Path, help="JSON file (default: benchmarks/results/<gpu>.json)")
    parser.add_argument("--overwrite", action="store_true", help="replace the results of an earlier check")
    parser.add_argument("--dry-run", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Run the script; returns its exit code."""
    check: Check | None = None
    try:
        check = Check(parse_arguments(arguments))
        return check.run()
    except HunyuanLocalError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        kept = "" if check is None or check.path is None else f"; the results so far are in {check.path}"
        print(f"interrupted{kept}", file=sys.stderr)
        return 130


class Check:
    """One run of the script.

    Args:
        options: from ``parse_arguments``.

    Attributes:
        path: file of the results; None before the card is known.

    Raises:
        ConfigError: no CUDA device, bad options, or a disk that is too small.
        OutputExistsError: the output file exists.
    """

    def __init__(self, options: argparse.Namespace):
        self._options, self._ends = options, time.monotonic() + 60 * options.minutes
        self.path: Path | None = None
        self._scale: Scale = TOY if options.dry_run else FULL
        self._ahead: process.Process | None = None
        if options.minutes <= 0:
            raise ConfigError(f"minutes={options.minutes:g}: must be above 0")
        if self._scale.device == "cuda":
            _require_gpu()
        if options.output is not None:
            _check_output(options.output, options.overwrite)
        _prepare_folder(options.work_dir, 0 if options.dry_run else DISK_BYTES)
        tiny, full = load_model_config("tiny").folder, configs_dir() / "architectures" / "hunyuan-video.json"
        self._configs = read_configs(tiny if options.dry_run else full)

    def run(self) -> int:
        """Run all phases, and write the file after each; returns the exit code.

        Raises:
            ConfigError: the machine cannot be described, or a named phase does not exist.
            OutputExistsError: the output file exists.
        """
        work = Path(tempfile.mkdtemp(prefix="run-", dir=self._options.work_dir))
        try:
            with without_weights(self._configs) as model:
                return self._run(Phases(self._scale, self._configs, work / "weights"), model)
        finally:
            if self._ahead is not None:
                self._ahead.close()
            shutil.rmtree(work, ignore_errors=True)

    def _run(self, known: Phases, model: ModelConfig) -> int:
        options, (card, weights) = self._options, known.first()
        record, seconds = self._measure(card, card.limit_s, weights)
        if record.get("card") is None:
            raise ConfigError(f"this machine cannot be described: {record['error']['message']}")
        described = record.pop("card")
        if self._scale.device == "cuda" and described["gpu"] is None:
            raise ConfigError("device='cuda': there is no NVIDIA driver (libcuda); other GPUs are not supported")
        machine = machine_of(described)
        by_name = {phase.name: phase for phase in known.others(model, machine)}
        chosen = [by_name.get(name) or known.named(name) for name in options.phase] or list(by_name.values())
        if options.list:
            print("\n".join(phase.name for phase in chosen))
            return 0
        self.path = path = _check_output(options.output or RESULTS / file_name(described), options.overwrite)
        if options.model is not None:
            chosen.insert(1, known.real_video(options.model, path.with_suffix(".mp4").absolute()))
        phases = [weights, *chosen]

        settings = {name: getattr(options, name) for name in ("minutes", "model", "dry_run")}
        found = report.start(described, settings | {"phases": options.phase})
        report.add(found, card, record, seconds, model, machine)
        for number, phase in enumerate(phases):
            left = self._ends - time.monotonic()
            if left < LEAST_S:
                report.skip(found, phases[number:], f"no time left of {options.minutes:g} minutes (--minutes)")
                break
            limit_s = min(in_minutes(phase, options.minutes).limit_s, left)
            record, seconds = self._measure(phase, limit_s, next(iter(phases[number + 1 :]), None))
            report.add(found, phase, record, seconds, model, machine)
            report.save(found, path)
        report.save(found, path)
        print(report.as_text(found), end="")
        return 1 if report.failures(found) else 0

    def _measure(self, phase: Phase, limit_s: float, following: Phase | None) -> tuple[dict[str, Any], float]:
        """The record of a phase, and its seconds; the process of the following phase starts to import meanwhile."""
        running = process.Process(phase) if self._ahead is None else self._ahead
        began, self._ahead = time.monotonic(), None
        try:
            self._ahead = None if following is None else process.Process(following)
            print(f"{phase.name}, at most {limit_s:.0f} s", file=sys.stderr, flush=True)
            return running.run(limit_s), time.monotonic() - began
        finally:
            running.close()


def _require_gpu() -> None:
    from hunyuan_local.pipeline.memory.device import why_no_gpu

    if (problem := why_no_gpu()) is not None:
        raise ConfigError(f"device='cuda': {problem}; this check needs a CUDA device")


def _check_output(path: Path, overwrite: bool) -> Path:
    if path.exists() and not overwrite:
        raise OutputExistsError(
            f"output={str(path)!r}: already exists; add --overwrite, or choose another file (--output)"
        )
    check_folder(f"output={str(path)!r}", path)
    return path


def _prepare_folder(work_dir: Path, needed: int) -> None:
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"work_dir={str(work_dir)!r}: cannot be created: {error}; choose another folder (--work-dir)"
        ) from error
    if (free := free_bytes(work_dir)) < needed:
        raise ConfigError(
            f"work_dir={str(work_dir)!r}: {free / 1e9:.1f} GB of disk are free, but the check needs "
            f"{needed / 1e9:.1f} GB; free some space, or choose a folder on another disk (--work-dir)"
        )
