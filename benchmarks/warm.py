"""Overhead of further requests in a process that has already generated a video.

Generates the same prompt repeatedly with different seeds, and counts the forward calls of the text encoders. The
start-up time of a request is its total time minus denoising, decoding and the rest of writing: reading the config,
choosing a profile, loading, and looking up the encoded prompt. The prompt cache on disk starts empty, so that the first
request must encode.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import CLIPTextModel, LlamaModel

from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.schema import GenerationRequest

STAGES = ("load", "encode", "denoise", "decode", "write")
OF_THE_VIDEO = ("denoise", "decode", "write")


@dataclass
class Request:
    """One request: seconds by stage and in total, and number of text encoder runs."""

    seconds: dict[str, float]
    total_s: float
    encoder_calls: int

    @property
    def startup_s(self) -> float:
        return self.total_s - sum(self.seconds[stage] for stage in OF_THE_VIDEO)


@contextmanager
def counted_encoders() -> Iterator[list[str]]:
    """Collect the classes of text encoders called inside the block, whenever they were loaded."""
    calls: list[str] = []

    def count(module: torch.nn.Module, args: tuple) -> None:
        if isinstance(module, (LlamaModel, CLIPTextModel)):
            calls.append(type(module).__name__)

    handle = torch.nn.modules.module.register_module_forward_pre_hook(count)
    try:
        yield calls
    finally:
        handle.remove()


def make(backend: LocalBackend, request: GenerationRequest, output: Path) -> Request:
    """Generate one video, timed from the call to the finished file."""
    with counted_encoders() as calls:
        began = time.perf_counter()
        result = backend.generate(request, GenerationContext(output, overwrite=True))
        total_s = time.perf_counter() - began
    seconds = {stage: getattr(result.timings, f"{stage}_s") for stage in STAGES}
    return Request(seconds, total_s, len(calls))


def measure(backend: LocalBackend, request: GenerationRequest, count: int) -> list[Request]:
    """The first request and ``count`` more with the same prompt, each with a different seed."""
    with tempfile.TemporaryDirectory() as folder:
        kept = os.environ.get("HUNYUAN_LOCAL_CACHE_DIR")
        os.environ["HUNYUAN_LOCAL_CACHE_DIR"] = folder
        try:
            output = Path(folder) / "video.mp4"
            return [make(backend, request.replace(seed=seed), output) for seed in range(count + 1)]
        finally:
            os.environ.pop("HUNYUAN_LOCAL_CACHE_DIR")
            if kept is not None:
                os.environ["HUNYUAN_LOCAL_CACHE_DIR"] = kept


def table(made: Sequence[Request]) -> str:
    """One line per request, and the median share of start-up in all requests but the first."""
    lines = [f"{'request':9}" + "".join(f"{stage:>9}" for stage in (*STAGES, "total", "start-up")) + "  encoder runs"]
    for number, request in enumerate(made, start=1):
        seconds = [*request.seconds.values(), request.total_s, request.startup_s]
        lines.append(f"{number:<9}" + "".join(f"{value:>9.3f}" for value in seconds) + f"{request.encoder_calls:>14}")
    shares = [100 * request.startup_s / request.total_s for request in made[1:]]
    lines.append(
        f"\nstart-up of a repeated prompt in a warm process: {statistics.median(shares):.2f} % of the request "
        f"({min(shares):.2f} to {max(shares):.2f}); text encoders ran {sum(r.encoder_calls for r in made[1:])} times"
    )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--profile", help="as for generate (default: chosen by the planner)")
    parser.add_argument("--prompt", default="a red circle moving right on a black background")
    parser.add_argument("--width", type=int)
    parser.add_argument("--height", type=int)
    parser.add_argument("--frames", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--again", type=int, default=5, help="requests after the first")
    parser.add_argument("--output", type=Path, help=".txt file; a .json file with all numbers is written next to it")
    options = parser.parse_args(arguments)

    backend = LocalBackend(options.model, options.profile)
    request = backend.resolve(
        GenerationRequest(
            prompt=options.prompt, width=options.width, height=options.height, num_frames=options.frames,
            num_inference_steps=options.steps,
        )
    )  # fmt: skip
    made = measure(backend, request, options.again)
    text = (
        f"{backend.config.name}, {request.width}x{request.height}, {request.num_frames} frames, "
        f"{request.num_inference_steps} steps; {torch.get_num_threads()} threads, {os.cpu_count()} cores, "
        f"{platform.system()} {platform.machine()}; seconds\n\n{table(made)}\n"
    )
    print(text)
    if options.output is not None:
        options.output.write_text(text)
        options.output.with_suffix(".json").write_text(json.dumps([asdict(r) for r in made], indent=1) + "\n")
    if made[0].encoder_calls == 0 or any(request.encoder_calls for request in made[1:]):
        sys.exit("a text encoder ran for a cached prompt, or did not run for the first request")


if __name__ == "__main__":
    main()
