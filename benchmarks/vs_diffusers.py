"""Compares this package with a plain diffusers script: the same weights, prompt, seed and steps, alternating.

For ``tiny``, and for ``mid``, a random checkpoint whose transformer takes most of the time, it measures whole processes
and their stages (wall and CPU seconds, peak resident memory) and the difference between the frames. For ``mid`` it also
compares a step with the floor of its kernels and the machine's peak, and measures the cost by tokens. With the default
settings it takes about half an hour on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from versus import children, mid, plot, tables
from versus.job import Job
from versus.machine import describe, fast_precision

from hunyuan_local.config import load_model_config
from hunyuan_local.schema import GenerationRequest

PROMPT = "a red circle moving right on a black background"


@dataclass
class Comparison:
    """All results for one checkpoint."""

    job: Job
    runs: dict[str, list[children.Run]] = field(default_factory=dict)
    frames: dict[str, Any] = field(default_factory=dict)
    kernels: dict[str, Any] = field(default_factory=dict)


def make_job(folder: Path, size: str, num_frames: int, steps: int, transformer: str) -> Job:
    """A job with the built-in model's template and defaults."""
    tiny = load_model_config("tiny")
    width, height = map(int, size.split("x"))
    request = GenerationRequest(
        prompt=PROMPT, width=width, height=height, num_frames=num_frames, num_inference_steps=steps, seed=1
    )
    request = request.with_defaults(dict(tiny.defaults))
    return Job(str(folder), tiny.prompt_template.model_dump(), request.model_dump(), transformer)


def compare(name: str, job: Job, arguments: argparse.Namespace, folder: Path) -> Comparison:
    """Run both scripts alternately; the first round fills the disk cache and does not count."""
    found = Comparison(job, {"stock": [], "ours": []})
    for number in range(arguments.repeats + 1):
        # The order alternates from round to round.
        for script in sorted(found.runs, reverse=number % 2 == 0):
            run = children.run(script, job, folder, f"{name}-{script}")
            if number:
                found.runs[script].append(run)
            print(f"{name}, {script}: {run.wall_s:.1f} s", flush=True)
    record = folder / "difference.json"
    children.call("difference", _short(job), folder, f"{name}-difference", record)
    found.frames = json.loads(record.read_text())
    if name == "mid":
        record = folder / "kernels.json"
        children.call("kernels", job, folder, "kernels", record, arguments.rounds)
        found.kernels = json.loads(record.read_text())
    return found


def _short(job: Job) -> Job:
    """The same job with few steps, which are enough to compare frames."""
    steps = min(job.request["num_inference_steps"], 3)
    return Job(**asdict(job) | {"request": job.request | {"num_inference_steps": steps}})


def main() -> None:
    """Compare both checkpoints, then print and write the tables."""
    arguments = _parse()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        jobs = {
            "tiny": make_job(load_model_config("tiny").folder, "144x80", 17, arguments.tiny_steps, "float32"),
            "mid": make_job(mid.provide(folder), arguments.size, arguments.frames, arguments.steps, arguments.dtype),
        }
        found = {key: compare(key, jobs[key], arguments, folder) for key in arguments.only or jobs}
    text = "\n\n".join([describe(), *(tables.whole(key, each) for key, each in found.items())]) + "\n"
    print(f"\n{text}")
    if arguments.output is not None:
        arguments.output.write_text(text)
        facts = {key: asdict(each) | {"job": each.job.request} for key, each in found.items()}
        record = arguments.output.with_suffix(".json")
        record.write_text(json.dumps(facts, indent=1) + "\n")
        plot.draw(record)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=("tiny", "mid"), help="one of the two checkpoints")
    parser.add_argument("--size", default="512x320", help="size of mid's video; 512x320 and 33 frames are 5760 tokens")
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--steps", type=int, default=10, help="denoising steps for mid")
    parser.add_argument(
        "--dtype",
        default=fast_precision(),
        help="precision of mid's transformer",
    )
    parser.add_argument("--tiny-steps", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3, help="counted rounds of both scripts")
    parser.add_argument("--rounds", type=int, default=5, help="rounds for a step and its floor")
    parser.add_argument("--output", type=Path, help="text file; a JSON file and a plot are written next to it")
    return parser.parse_args()


if __name__ == "__main__":
    main()
