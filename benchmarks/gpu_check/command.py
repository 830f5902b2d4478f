"""The command line and main function of ``scripts/gpu_check``."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hunyuan_local.config import ModelConfig, cache_dir, configs_dir, load_model_config
from hunyuan_local.errors import ConfigError, HunyuanLocalError, OutputExistsError

from . import apart, report
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
    parser.add_argument("--task", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Run the script; returns its exit code."""
    check: Check | None = None
    try:
        options = parse_arguments(arguments)
        if options.task is not None:
            return apart.wait_and_do(options.task)
        check = Check(options)
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

    Raises:
        ConfigError: no CUDA device, bad options, or a disk that is too small.
        OutputExistsError: the output file exists.
    """

    def __init__(self, options: argparse.Namespace):
        self._options, self._ends = options, time.monotonic() + 60 * options.minutes
        self.path: Path | None = None
        self._scale: Scale = TOY if options.dry_run else FULL
        self._ahead: apart.Child | None = None
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
                return self._run(work / "weights", model)
        finally:
            if self._ahead is not None:
                self._ahead.close()
            shutil.rmtree(work, ignore_errors=True)

    def _run(self, folder: Path, model: ModelConfig) -> int:
        known = Phases(self._scale, self._configs, folder)
        card, weights = known.first()
        record, seconds = self._measure(card, card.limit_s, weights)
        if record.get("card") is None:
            raise ConfigError(f"this machine cannot be described: {record['error']['message']}")
        described = record.pop("card")
        if self._scale.device == "cuda" and described["gpu"] is None:
            raise ConfigError("device='cuda': there is no NVIDIA driver (libcuda); other GPUs are not supported")
        machine = machine_of(described)
        phases = self._choose(known, known.others(model, machine))
        if self._options.list:
            print("\n".join(phase.name for phase in phases))
            return 0
        path = self._options.output or RESULTS / file_name(described)
        _check_output(path, self._options.overwrite)
        self.path = path
        if self._options.model is not None:
            phases.insert(1, known.real_video(self._options.model, path.with_suffix(".mp4")))
        phases.insert(0, weights)

        settings = {"minutes": self._options.minutes, "model": self._options.model, "phases": self._options.phase}
        found = report.start(described, settings | {"dry_run": self._options.dry_run})
        report.add(found, card, record, seconds, model, machine)
        for number, phase in enumerate(phases):
            left = self._ends - time.monotonic()
            if left < LEAST_S:
                report.skip(found, phases[number:], f"no time left of {self._options.minutes:g} minutes (--minutes)")
                break
            limited = in_minutes(phase, self._options.minutes)
            following = phases[number + 1] if number + 1 < len(phases) else None
            record, seconds = self._measure(limited, min(limited.limit_s, left), following)
            report.add(found, phase, record, seconds, model, machine)
            report.save(found, path)
        report.save(found, path)
        print(report.as_text(found), end="")
        return 1 if report.failures(found) else 0

    def _choose(self, known: Phases, phases: list[Phase]) -> list[Phase]:
        """The phases that the user named, or all."""
        by_name = {phase.name: phase for phase in phases}
        return [by_name.get(name) or known.named(name) for name in self._options.phase] or phases

    def _measure(self, phase: Phase, limit_s: float, following: Phase | None) -> tuple[dict[str, Any], float]:
        """The record of a phase, and its seconds; the process of the following phase starts to import meanwhile."""
        child = self._ahead if self._ahead is not None and self._ahead.phase.name == phase.name else apart.Child(phase)
        began, self._ahead = time.monotonic(), None
        try:
            self._ahead = None if following is None else apart.Child(following)
            print(f"{phase.name}, at most {limit_s:.0f} s", file=sys.stderr, flush=True)
            return child.run(limit_s), time.monotonic() - began
        finally:
            child.close()


def _require_gpu() -> None:
    from hunyuan_local.pipeline.memory.device import why_no_gpu

    if (problem := why_no_gpu()) is not None:
        raise ConfigError(f"device='cuda': {problem}; this check needs a CUDA device")


def _check_output(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise OutputExistsError(
            f"output={str(path)!r}: already exists; add --overwrite, or choose another file (--output)"
        )
    if not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        raise ConfigError(
            f"output={str(path)!r}: its folder must exist and be writable; choose another file (--output)"
        )


def _prepare_folder(work_dir: Path, needed: int) -> None:
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(work_dir).free
    except OSError as error:
        raise ConfigError(
            f"work_dir={str(work_dir)!r}: cannot be created: {error}; choose another folder (--work-dir)"
        ) from error
    if free < needed:
        raise ConfigError(
            f"work_dir={str(work_dir)!r}: {free / 1e9:.1f} GB of disk are free, but the check needs "
            f"{needed / 1e9:.1f} GB; free some space, or choose a folder on another disk (--work-dir)"
        )
