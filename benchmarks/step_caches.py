"""Measures what the step caches cost in quality: PSNR against the exact run, and the steps made in full.

Every prompt is made exactly and then with each cache, from the same seed. ``--calibrate`` measures
the ratios that ``cache.kind: magcache`` needs, as YAML for a profile. On the built-in checkpoint a
step is too short for its time to say anything, so no speed is given.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hunyuan_local.backends.local import LocalBackend
from hunyuan_local.config import CacheConfig, FirstBlockCache, MagCache, TaylorSeerCache
from hunyuan_local.pipeline.acceleration import measured_mag_ratios
from hunyuan_local.pipeline.decoder import decode
from hunyuan_local.pipeline.runner import denoise
from hunyuan_local.schema import GenerationRequest

PROMPTS = (
    "a red circle moving right on a black background",
    "a blue square moving up on a grey background",
    "a yellow triangle moving left on a navy background",
    "a white circle moving down on a grey background",
)
THRESHOLDS = {"first-block": (0.06, 0.12, 0.2, 0.3), "magcache": (0.06, 0.12, 0.24)}
INTERVALS = (2, 3, 4)


def ignore(told: object) -> None:
    pass


def make(backend: LocalBackend, request: GenerationRequest, cache: CacheConfig | None) -> tuple[np.ndarray, int]:
    """The frames, and how many steps ran through the last block."""
    model = backend.load()
    model = replace(model, profile=model.profile.model_copy(update={"cache": cache}))
    full: list[object] = []
    block = model.pipe.transformer.single_transformer_blocks[-1]
    handle = block.attn.register_forward_hook(lambda *call: full.append(None))
    try:
        size = backend.config.render_size(request.width, request.height)
        denoised = denoise(model, request, size, ignore, ignore, lambda: False)
    finally:
        handle.remove()
    return np.concatenate(list(decode(model, denoised.latents))), len(full)


def calibrate(backend: LocalBackend, requests: Sequence[GenerationRequest]) -> list[float]:
    """The mean ratios over the requests, one a step."""
    measured = []
    for request in requests:
        with measured_mag_ratios(backend.load().pipe.transformer) as ratios:
            make(backend, request, None)
        measured.append(ratios)
    return [round(float(ratio), 4) for ratio in np.mean(measured, axis=0)]


def squared_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Mean over all frames and channels, each of 8 bits."""
    return float(np.mean((found.astype(float) - expected) ** 2))


def psnr(error: float) -> float:
    """In dB; infinite where nothing differs."""
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def caches(ratios: Sequence[float]) -> list[CacheConfig]:
    first_block = [FirstBlockCache(kind="first-block", threshold=value) for value in THRESHOLDS["first-block"]]
    taylorseer = [TaylorSeerCache(kind="taylorseer", interval=value) for value in INTERVALS]
    magcache = [MagCache(kind="magcache", threshold=t, mag_ratios=tuple(ratios)) for t in THRESHOLDS["magcache"]]
    return [*first_block, *taylorseer, *magcache]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--profile")
    parser.add_argument("--prompt", action="append", help="may be given more than once")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--frames", type=int)
    parser.add_argument("--calibrate", action="store_true", help="only measure the ratios for magcache")
    parser.add_argument("--output", type=Path, help="a .txt file; the figures go into a .json file beside it")
    options = parser.parse_args()

    backend = LocalBackend(options.model, options.profile)
    requests = [
        backend.resolve(
            GenerationRequest(prompt=prompt, num_frames=options.frames, num_inference_steps=options.steps, seed=seed)
        )
        for seed, prompt in enumerate(options.prompt or PROMPTS)
    ]
    ratios = calibrate(backend, requests)
    if options.calibrate:
        print(f"cache:\n  kind: magcache\n  mag_ratios: {ratios}")
        return
    exact = [make(backend, request, None) for request in requests]
    rows = []
    for cache in caches(ratios):
        made = [make(backend, request, cache) for request in requests]
        errors = [squared_error(frames, expected) for (frames, _), (expected, _) in zip(made, exact, strict=True)]
        rows.append({"cache": cache.model_dump(), "squared_error": errors, "full_steps": [steps for _, steps in made]})
    steps = requests[0].num_inference_steps
    lines = [
        f"{backend.config.name}: {len(requests)} videos of {steps} steps; PSNR against the run without a cache",
        "",
        "cache        setting          full steps  PSNR, dB: of all  of the worst",
    ]
    for row in rows:
        name = "interval" if row["cache"]["kind"] == "taylorseer" else "threshold"
        setting, full = f"{name} {row['cache'][name]}", np.mean(row["full_steps"])
        overall, worst = psnr(np.mean(row["squared_error"])), psnr(max(row["squared_error"]))
        lines.append(f"{row['cache']['kind']:<13}{setting:<17}{full:<12.2f}{overall:<18.1f}{worst:.1f}")
    text = "\n".join(lines) + "\n"
    print(text)
    if options.output is not None:
        options.output.write_text(text)
        content = {"model": backend.config.name, "steps": steps, "mag_ratios": ratios, "rows": rows}
        options.output.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
