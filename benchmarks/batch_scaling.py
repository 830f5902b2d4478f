"""Throughput of a batch: two replicas compared with one, and a batch compared with one command per prompt, as ratios.

All ways use the same prompts, each with a different seed. They alternate, so that drift of the machine affects all
alike; ratios are ratios of medians. Whole commands are timed, and for batches also the work alone: from the start of
the first job to the end of the last. ``--replicas 1`` skips the comparison of replicas.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from hunyuan_local.jobs.folder import DataFolder

COLOURS = ("red", "green", "blue", "yellow", "purple", "white")
SHAPES = ("circle", "square", "triangle")
WAYS = ("left", "right", "up", "down")


@dataclass
class Way:
    """One way to generate the videos, and the seconds of each of its runs."""

    title: str
    command_s: list[float] = field(default_factory=list)
    work_s: list[float] = field(default_factory=list)


def main() -> None:
    """Run every way ``--repeats`` times, and print the ratios."""
    arguments = _parse()
    ways = {name: Way(title) for name, title in _titles(arguments.replicas).items()}
    for repeat in range(arguments.repeats):
        for name, way in ways.items():
            print(f"run {repeat + 1} of {arguments.repeats}: {way.title}", file=sys.stderr)
            with tempfile.TemporaryDirectory() as folder:
                _run(name, way, Path(folder), arguments)
    text = _table(ways, arguments)
    print(text)
    if arguments.output is not None:
        arguments.output.write_text(text + "\n")
        facts = {name: {"command_s": way.command_s, "work_s": way.work_s} for name, way in ways.items()}
        arguments.output.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")


def _titles(replicas: int) -> dict[str, str]:
    titles = {"one": "batch, 1 replica", "commands": "one command per prompt"}
    return titles | ({"several": f"batch, {replicas} replicas"} if replicas > 1 else {})


def _run(name: str, way: Way, folder: Path, arguments: argparse.Namespace) -> None:
    prompts = [f"a {c} {s} moves {w}" for s in SHAPES for w in WAYS for c in COLOURS][: arguments.videos]
    environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads)}
    began = time.monotonic()
    if name == "commands":
        for seed, prompt in enumerate(prompts):
            output = ["--seed", str(seed), "--output", str(folder / f"{seed}.mp4")]
            _call(["generate", prompt, *output], arguments, environment)
    else:
        lines = (json.dumps({"prompt": prompt, "seed": seed}) for seed, prompt in enumerate(prompts))
        (folder / "prompts.jsonl").write_text("\n".join(lines))
        workers = "1" if name == "one" else str(arguments.replicas)
        options = ["--output-dir", str(folder), "--workers", workers, "--min-free-gib", "0.1"]
        _call(["batch", str(folder / "prompts.jsonl"), *options], arguments, environment)
        jobs = DataFolder(folder / ".hunyuan-local").store().find(limit=10_000)
        way.work_s.append(max(job.finished_at for job in jobs) - min(job.started_at for job in jobs))
    way.command_s.append(time.monotonic() - began)
    found = len(list(folder.glob("*.mp4")))
    if found != len(prompts):
        sys.exit(f"{way.title}: {found} of {len(prompts)} videos")


def _call(command: list[str], arguments: argparse.Namespace, environment: dict[str, str]) -> None:
    size = ["--size", arguments.size, "--num-frames", str(arguments.frames)]
    steps = ["--num-inference-steps", str(arguments.steps)]
    model = ["--model", arguments.model, "--profile", arguments.profile]
    subprocess.run(
        [sys.executable, "-m", "hunyuan_local", *command, *model, *size, *steps],
        env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _table(ways: dict[str, Way], arguments: argparse.Namespace) -> str:
    lines = [
        f"{arguments.videos} videos of {arguments.size}, {arguments.frames} frames, {arguments.steps} steps; model "
        f"{arguments.model}, profile {arguments.profile}, {arguments.threads} threads per process, "
        f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, median of {arguments.repeats}",
        "",
        f"{'':24}{'whole command':>15}{'videos/min':>12}{'work alone':>12}{'videos/min':>12}",
    ]
    for way in ways.values():
        whole = statistics.median(way.command_s)
        row = f"{way.title:24}{whole:>13.1f} s{60 * arguments.videos / whole:>12.1f}"
        if way.work_s:
            work = statistics.median(way.work_s)
            row += f"{work:>10.1f} s{60 * arguments.videos / work:>12.1f}"
        lines.append(row)
    lines.append("")
    one = ways["one"]
    if "several" in ways:
        many = ways["several"]
        lines.append(
            f"{arguments.replicas} replicas over 1: {_ratio(one.work_s, many.work_s)} times the throughput of "
            f"generation, {_ratio(one.command_s, many.command_s)} times with start and loading"
        )
    commands = ways["commands"]
    lines.append(
        f"batch of {arguments.videos} prompts: {_ratio(one.command_s, commands.command_s, 3)} of {arguments.videos} "
        "separate commands"
    )
    return "\n".join(lines)


def _ratio(of: list[float], to: list[float], digits: int = 2) -> str:
    """The ratio of the medians, and the range of the ratios of single rounds."""
    each = [a / b for a, b in zip(of, to, strict=True)]
    ratio = statistics.median(of) / statistics.median(to)
    return f"{ratio:.{digits}f} ({min(each):.{digits}f} to {max(each):.{digits}f})"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=16)
    parser.add_argument("--replicas", type=int, default=2, help="1 skips the comparison of replicas")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="per process")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--profile", default="cpu")
    parser.add_argument("--size", default="144*80")
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--output", type=Path, help="text file; a JSON file with the same name is written next to it")
    return parser.parse_args()


if __name__ == "__main__":
    main()
