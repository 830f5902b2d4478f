"""Time of a denoising step by kind of operation: diffusers' transformer and ours, in one process.

Uses the random checkpoint ``mid`` of ``vs_diffusers``. Times are self times from torch's profiler, without nested
operations; ``KINDS`` lists the operations of each kind.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile
from versus import mid
from versus.kernels import inputs, latents_of, ways_of
from versus.machine import describe, fast_precision

# Kinds by the names of torch's operations; all others count as the rest.
KINDS = {
    "attention": ("_scaled_dot_product_flash_attention_for_cpu", "scaled_dot_product_attention"),
    "matrix products": ("addmm", "mm", "bmm", "linear", "mkldnn_convolution"),
    "GELU and SiLU": ("gelu", "silu"),
    "copies and joins": ("copy_", "cat", "_to_copy", "clone", "contiguous", "stack"),
    "norms": ("native_layer_norm", "pow", "mean", "rsqrt"),
    "sums and products": ("mul", "add", "add_", "mul_", "neg"),
}


@torch.no_grad()
def seconds_by_kind(steps: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, float]]:
    """Mean seconds of each way's step by kind, alternating; the first round is a warm-up."""
    kinds = {f"aten::{name}": kind for kind, names in KINDS.items() for name in names}
    found = {way: dict.fromkeys((*KINDS, "the rest"), 0.0) for way in steps}
    for number in range(rounds + 1):
        for way, step in steps.items():
            with profile(activities=[ProfilerActivity.CPU]) as seen:
                step()
            for entry in seen.key_averages() if number else ():
                found[way][kinds.get(entry.key, "the rest")] += entry.self_cpu_time_total / 1e6 / rounds
    return found


def table(found: dict[str, dict[str, float]]) -> str:
    """Seconds and shares, one line per kind."""
    lines = [f"{'':20}" + "".join(f"{way:>20}" for way in found)]
    totals = {way: sum(kinds.values()) for way, kinds in found.items()}
    for kind in (*KINDS, "the rest"):
        cells = (f"{kinds[kind]:>12.2f} s{kinds[kind] / totals[way]:>5.0%} " for way, kinds in found.items())
        lines.append(f"{kind:20}" + "".join(cells))
    lines.append(f"{'a step':20}" + "".join(f"{total:>12.2f} s      " for total in totals.values()))
    return "\n".join(line.rstrip() for line in lines)


def main() -> None:
    """Profile, then print and write the table."""
    arguments = _parse()
    width, height = map(int, arguments.size.split("x"))
    size = latents_of({"width": width, "height": height, "num_frames": arguments.frames})
    with tempfile.TemporaryDirectory() as name:
        stock, ours = ways_of(str(mid.provide(Path(name))), getattr(torch, fast_precision()))
    given = inputs(stock, size)
    found = seconds_by_kind({"stock": lambda: stock(**given), "ours": lambda: ours(**given)}, arguments.rounds)
    title = f"a step at {arguments.size}, {arguments.frames} frames; mean of {arguments.rounds} steps, alternating"
    text = f"{describe()}\n\n{title}\n\n{table(found)}\n"
    print(text)
    if arguments.output is not None:
        arguments.output.write_text(text)
        arguments.output.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="512x320", help="512x320 and 33 frames are 5760 tokens")
    parser.add_argument("--frames", type=int, default=33)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="text file; a JSON file with the same name is written next to it")
    return parser.parse_args()


if __name__ == "__main__":
    main()
