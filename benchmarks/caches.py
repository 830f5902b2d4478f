"""Time saved and quality lost by each step cache: seconds, PSNR, SSIM and the quality table.

The settings of ``configs/caches`` were chosen from this. One process keeps the model loaded. Each round denoises a
different prompt without a cache and with every setting, in rotating order, and compares the frames with the exact ones
of the same round. Then it generates whole videos, from the request to the file with an encoded prompt, without a cache
and with each setting of ``configs/caches``. Ratios are ratios of medians. ``--calibrate`` only measures the ratios that
``cache.kind: magcache`` needs, as YAML for a model's config.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from frame_distance import psnr, squared_error, ssim

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from right_videos import count_right

from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.backends.local.profile_choice import with_cache
from hunyuan_local.config import CacheConfig, FirstBlockCache, MagCache, TaylorSeerCache, cache_names, load_cache
from hunyuan_local.pipeline.acceleration import measured_mag_ratios
from hunyuan_local.pipeline.decode import decode
from hunyuan_local.pipeline.denoise import Denoised, denoise
from hunyuan_local.schema import GenerationRequest

PROMPTS = (
    "a red circle moving right on a black background",
    "a blue square moving up on a grey background",
    "a yellow triangle moving left on a navy background",
    "a white circle moving down on a grey background",
)
GRID: dict[type, tuple[dict[str, float], ...]] = {
    FirstBlockCache: tuple({"threshold": value} for value in (0.06, 0.12, 0.2, 0.3)),
    TaylorSeerCache: (
        {"interval": 2}, {"interval": 3}, {"interval": 4}, {"interval": 6}, {"interval": 3, "order": 2},
        {"interval": 3, "order": 0}, {"interval": 3, "start": 0.15}, {"interval": 3, "start": 0.1},
        {"interval": 3, "end": 0.9}, {"interval": 4, "start": 0.1},
    ),
    MagCache: (
        {"threshold": 0.06}, {"threshold": 0.12, "max_skips": 2}, {"threshold": 0.12, "max_skips": 4},
        {"threshold": 0.24, "max_skips": 2}, {"threshold": 0.24, "max_skips": 6},
        {"threshold": 0.14, "max_skips": 4, "start": 0.15}, {"threshold": 0.24, "max_skips": 6, "end": 0.9},
    ),
}  # fmt: skip
KINDS = {FirstBlockCache: "first-block", TaylorSeerCache: "taylorseer", MagCache: "magcache"}


@dataclass
class Row:
    """One setting and its measurements, one value per round; whole videos also add to ``denoise_s``.

    Attributes:
        cache: the cache; None for the exact path.
        name: name in ``configs/caches``; empty for settings that are only in the grid.
        whole_s: seconds for whole videos, only for named settings and the exact path.
        right: number of combinations with correct colour, shape, direction and background; None if not judged.
    """

    cache: CacheConfig | None
    name: str = ""
    denoise_s: list[float] = field(default_factory=list)
    full_steps: list[int] = field(default_factory=list)
    squared_error: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    whole_s: list[float] = field(default_factory=list)
    right: int | None = None

    @property
    def psnr_db(self) -> float:
        """PSNR over all frames."""
        return psnr(float(np.mean(self.squared_error)))

    @property
    def setting(self) -> str:
        """Kind and all values on one line."""
        if self.cache is None:
            return "exact"
        values = self.cache.model_dump(exclude={"kind", "mag_ratios", "thresholds"})
        span = "" if self.cache.end == 1 else f" to {self.cache.end:g}"
        own = " ".join(f"{name.replace('_', ' ')} {values[name]:g}" for name in values if name not in ("start", "end"))
        return f"{self.cache.kind} {own} from {self.cache.start:g}{span}"

    def as_json(self) -> dict:
        """All measurements; an infinite PSNR is null."""
        found = asdict(self) | {"cache": None if self.cache is None else self.cache.model_dump(exclude={"mag_ratios"})}
        return found | {"setting": self.setting, "psnr_db": None if math.isinf(self.psnr_db) else self.psnr_db}


@contextmanager
def cached(backend: LocalBackend, cache: CacheConfig | None) -> Iterator[None]:
    """Run the loaded model with this cache inside the block."""
    before = backend.load()
    backend.kept.loaded = replace(before, profile=before.profile.model_copy(update={"cache": cache}))
    try:
        yield
    finally:
        backend.kept.loaded = before


def run(backend: LocalBackend, request: GenerationRequest, cache: CacheConfig | None) -> tuple[Denoised, int]:
    """The latents, and the number of steps that ran the last block."""
    full: list[None] = []
    with cached(backend, cache):
        model = backend.load()
        block = model.pipe.transformer.single_transformer_blocks[-1]
        handle = block.attn.register_forward_hook(lambda *call: full.append(None))
        try:
            size = backend.config.render_size(request.width, request.height)
            ignore = lambda value: None  # noqa: E731
            return denoise(model, request, size, ignore, ignore, lambda: False), len(full)
        finally:
            handle.remove()


def calibrate(backend: LocalBackend, requests: Sequence[GenerationRequest]) -> list[float]:
    """The mean ratios over the requests, one per step."""
    measured = []
    for request in requests:
        with measured_mag_ratios(backend.load().pipe.transformer) as ratios:
            run(backend, request, None)
        measured.append(ratios)
    return [round(float(ratio), 4) for ratio in np.mean(measured, axis=0)]


def rows(backend: LocalBackend, with_grid: bool, part_of_name: str) -> list[Row]:
    """The exact path, the settings of ``configs/caches``, and the rest of the grid."""
    wanted = [(load_cache(name), name) for name in cache_names() if part_of_name in name]
    if with_grid:
        wanted += [(kind(kind=KINDS[kind], **values), "") for kind, grid in GRID.items() for values in grid]
    found = [Row(None)]
    for cache, name in wanted:
        fitted = with_cache(backend.load().profile, cache, backend.config).cache
        if name or fitted not in [row.cache for row in found]:
            found.append(Row(fitted, name))
    return found


def measure(backend: LocalBackend, found: Sequence[Row], requests: Sequence[GenerationRequest]) -> None:
    """Denoise every request with every setting, and compare the frames with those of the exact path."""
    for number, request in enumerate(requests):
        frames = {}
        first = number * len(found) // len(requests)
        for row in (*found[first:], *found[:first]):
            denoised, full_steps = run(backend, request, row.cache)
            row.denoise_s.append(denoised.denoise_s)
            row.full_steps.append(full_steps)
            frames[id(row)] = np.concatenate(list(decode(backend.load(), denoised.latents)))
        for row in found:
            row.squared_error.append(squared_error(frames[id(row)], frames[id(found[0])]))
            row.ssim.append(ssim(frames[id(row)], frames[id(found[0])]))
        print(f"round {number + 1} of {len(requests)}", file=sys.stderr, flush=True)


def measure_whole(backend: LocalBackend, found: Sequence[Row], request: GenerationRequest, rounds: int) -> None:
    """Generate whole files alternately with the named settings and the exact path."""
    chosen = [row for row in found if row.name or row.cache is None]
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            for row in chosen[number % len(chosen) :] + chosen[: number % len(chosen)]:
                with cached(backend, row.cache):
                    began = time.perf_counter()
                    made = backend.generate(request, GenerationContext(Path(folder) / "video.mp4", overwrite=True))
                    row.whole_s.append(time.perf_counter() - began)
                    row.denoise_s.append(made.timings.denoise_s)


def table(found: Sequence[Row], judged: int) -> str:
    """One line per setting, then one line on whole videos per named setting."""
    exact = found[0]
    lines = [f"{'setting, or its name in configs/caches':50}{'full steps':>11}{'denoise s':>11}{'of exact':>9}"
             f"{'PSNR dB':>9}{'worst':>7}{'SSIM':>8}"]  # fmt: skip
    for row in found:
        ratio = median(row.denoise_s) / median(exact.denoise_s)
        lines.append(
            f"{row.name or row.setting:50}{np.mean(row.full_steps):>11.1f}{median(row.denoise_s):>11.2f}{ratio:>9.2f}"
            f"{row.psnr_db:>9.1f}{psnr(max(row.squared_error)):>7.1f}{np.mean(row.ssim):>8.4f}"
        )
    lines += ["", f"{'in configs/caches':28}{'whole video s':>14}{'of exact':>9}{'right of ' + str(judged):>14}  is"]
    for row in found:
        if row.whole_s:
            ratio = median(row.whole_s) / median(exact.whole_s)
            right = "" if row.right is None else str(row.right)
            lines.append(f"{row.name or 'exact':28}{median(row.whole_s):>14.2f}{ratio:>9.2f}{right:>14}  {row.setting}")
    return "\n".join(lines)


def draw(found: Sequence[Row], title: str, path: Path) -> None:
    """Plot PSNR over saved seconds of denoising, one marker per kind, with the names of named settings."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    exact = median(found[0].denoise_s)
    for kind, marker in zip(KINDS.values(), "os^", strict=True):
        shown = [r for r in found if r.cache is not None and r.cache.kind == kind and not math.isinf(r.psnr_db)]
        saved = [exact - median(row.denoise_s) for row in shown]
        axes.scatter(saved, [row.psnr_db for row in shown], marker=marker, s=60, label=kind, alpha=0.8)
        for row, place in zip(shown, saved, strict=True):
            if row.name:
                axes.annotate(row.name, (place, row.psnr_db), xytext=(6, 6), textcoords="offset points", fontsize=9)
    axes.set(title=title, ylabel="PSNR, dB", xlabel=f"seconds of denoising saved, of {exact:.2f} on the exact path")
    axes.axvline(0.45 * exact, color="grey", linestyle=":", label="0.55 of the exact path")
    axes.margins(x=0.25)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0].replace("\n", " "))
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--profile", help="as for generate (default: chosen by the planner)")
    parser.add_argument("--prompt", action="append", help="one round per prompt; can be repeated")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--frames", type=int)
    parser.add_argument("--settings", default="", metavar="TEXT", help="only names in configs/caches that contain this")
    parser.add_argument("--no-grid", action="store_true", help="only the settings of configs/caches")
    parser.add_argument("--whole", type=int, default=3, metavar="N", help="rounds of whole videos")
    parser.add_argument("--quality", type=int, choices=range(217), default=0, metavar="N",
                        help="judge N of the 216 combinations (tiny)")  # fmt: skip
    parser.add_argument("--calibrate", action="store_true", help="only measure the ratios for magcache")
    parser.add_argument("--output", type=Path, help=".txt file; a .json file and a plot are written next to it")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    backend = LocalBackend(options.model, options.profile)
    requests = [
        backend.resolve(
            GenerationRequest(prompt=prompt, num_frames=options.frames, num_inference_steps=options.steps, seed=seed)
        )
        for seed, prompt in enumerate(options.prompt or PROMPTS)
    ]
    run(backend, requests[0], None)  # the first run is slower
    if options.calibrate:
        print(f"mag_ratios: {calibrate(backend, requests)}")
        return
    found = rows(backend, not options.no_grid, options.settings)
    steps, frames = requests[0].num_inference_steps, requests[0].num_frames
    title = f"{backend.config.name}, {len(requests)} videos of {frames} frames and {steps} steps"
    # Write the results after each part: the last one may take an hour.
    measure(backend, found, requests)
    save(found, title, options)
    measure_whole(backend, found, requests[0], options.whole)
    save(found, title, options)
    for row in found if options.quality else []:
        if row.name or row.cache is None:
            with cached(backend, row.cache):
                row.right = count_right(backend, steps, options.quality)
            save(found, title, options)
    print(table(found, options.quality))


def save(found: Sequence[Row], title: str, options: argparse.Namespace) -> None:
    """Write the table, the numbers and the plot, with ``--output``."""
    if options.output is None:
        return
    heading = f"{title}, {torch.get_num_threads()} threads; compared with the exact path"
    options.output.write_text(f"{heading}\n\n{table(found, options.quality)}\n")
    content = {"heading": heading, "judged": options.quality, "rows": [row.as_json() for row in found]}
    options.output.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
    draw(found, title, options.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
