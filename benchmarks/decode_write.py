"""Decoding and writing a long video: seconds and peak memory against ``vae.decode`` and ``export_to_video``.

The latents come from a real clip of the built-in model, repeated in space and time to fill the size; noise would be
unrealistic work for the encoder. Each way runs in a separate process, alternating. Times are from the loaded
autoencoder to the finished file, without loading; memory is that of the whole process.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from dataclasses import asdict
from pathlib import Path

import torch
from versus import children
from versus.decoding import FREE_BYTES, WAYS
from versus.job import Job
from versus.machine import describe
from versus.ours import make_backend

from hunyuan_local.config import load_model_config
from hunyuan_local.pipeline.denoise import denoise
from hunyuan_local.schema import GenerationRequest

PROMPT = "a red circle moving right on a black background"


def make_job(width: int, height: int, num_frames: int) -> Job:
    """The built-in model's weights and a request of this size."""
    tiny = load_model_config("tiny")
    request = GenerationRequest(prompt=PROMPT, width=width, height=height, num_frames=num_frames, seed=1)
    request = request.with_defaults(dict(tiny.defaults) | {"fps": 24})
    return Job(str(tiny.folder), tiny.prompt_template.model_dump(), request.model_dump())


def repeated_latents(job: Job) -> torch.Tensor:
    """float32 [1, 16, T, H/8, W/8]: a clip of 144x80 and 17 frames, tiled in width, height and time."""
    small = GenerationRequest(**job.request).replace(width=144, height=80, num_frames=17)
    ignore = lambda value: None  # noqa: E731
    latents = denoise(make_backend(job).load(), small, (144, 80), ignore, ignore, lambda: False).latents
    wanted = ((job.request["num_frames"] - 1) // 4 + 1, job.request["height"] // 8, job.request["width"] // 8)
    times = [math.ceil(a / b) for a, b in zip(wanted, latents.shape[2:], strict=True)]
    return latents.repeat(1, 1, *times)[:, :, : wanted[0], : wanted[1], : wanted[2]].contiguous()


def main() -> None:
    """Run the ways alternately, then print and write the table."""
    arguments = _parse()
    width, height = map(int, arguments.size.split("x"))
    job = make_job(width, height, arguments.frames)
    runs: dict[str, list[children.Run]] = {way: [] for way in arguments.way or ("stock", "tiled", "ours")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.save(repeated_latents(job), folder / "latents.pt")
        for _ in range(arguments.repeats):
            for way in runs:
                runs[way].append(children.run("decoding", job, folder, way, way, folder / "latents.pt"))
                print(f"{way}: {_work_s(runs[way][-1]):.1f} s", flush=True)
    text = f"{describe()}\n\n{table(runs, arguments)}\n"
    print(f"\n{text}")
    if arguments.output is not None:
        arguments.output.write_text(text)
        found = {way: [asdict(run) for run in each] for way, each in runs.items()}
        arguments.output.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")


def table(runs: dict[str, list[children.Run]], arguments: argparse.Namespace) -> str:
    """Medians, and the ratios to the plain script within the same round."""
    lines = [
        f"{arguments.size}, {arguments.frames} frames, the built-in autoencoder in float32; medians of "
        f"{arguments.repeats}, ratios to the first row, alternating",
        "",
        f"{'':32}{'decode and write':>18}{'ratio':>7}{'peak memory':>13}{'ratio':>7}",
    ]
    titles = WAYS | {"ours": f"{WAYS['ours']}, tiles for {FREE_BYTES / 2**30:.0f} GiB"}
    first = next(iter(runs.values()))
    for way, each in runs.items():
        wall = statistics.median(map(_work_s, each))
        peak = statistics.median(run.peak_bytes for run in each)
        pairs = list(zip(each, first, strict=True))
        wall_ratio = statistics.median(_work_s(run) / _work_s(other) for run, other in pairs)
        peak_ratio = statistics.median(run.peak_bytes / other.peak_bytes for run, other in pairs)
        lines.append(f"{titles[way]:32}{wall:>16.1f} s{wall_ratio:>7.2f}{peak / 2**30:>9.2f} GiB{peak_ratio:>7.2f}")
    return "\n".join(lines)


def _work_s(run: children.Run) -> float:
    return sum(run.stages[stage]["wall_s"] for stage in ("decode", "write"))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--frames", type=int, default=129)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument(
        "--way", action="append", choices=tuple(WAYS), help="only this way; can be repeated (default: all but returned)"
    )
    parser.add_argument("--output", type=Path, help="text file; a JSON file with the same name is written next to it")
    return parser.parse_args()


if __name__ == "__main__":
    main()
