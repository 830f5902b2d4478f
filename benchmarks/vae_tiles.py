"""Compares VAE tiles chosen from the free memory with diffusers' fixed tiles: operations, seconds, seams.

Prints three tables. Operations and peak memory for a 720p video of the 13 B model come from the planner. Seconds are
CPU seconds with one thread on the built-in model, the minimum of alternating rounds. Seams are the difference between
frames decoded in tiles and without tiles, on clips encoded by the built-in model's autoencoder. Its norms span a whole
tile in one group rather than 32, so tiles have more effect than in the 13 B model; it has no attention. The times do
not apply to GPUs.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.config import GIB, load_model_config
from hunyuan_local.config.tiling import TILED, UNTILED, Tiling
from hunyuan_local.pipeline.decode import decode
from hunyuan_local.pipeline.model import LoadedModel
from hunyuan_local.planner.architecture import Autoencoder
from hunyuan_local.planner.checkpoint import read_architecture
from hunyuan_local.planner.decoding import Decode, trace_decode
from hunyuan_local.planner.plan import MAX_ELEMENTS
from hunyuan_local.planner.tiles import choose_tiling, needed_bytes

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from tiny.world import Combination, Scene, render

LARGE_VIDEO = (33, 90, 160)
FREE_GIB = (2, 4, 8, 16, 32)
# Sizes for the built-in model in pixels (width, height), and frames: one full temporal tile.
TIMED, SEAMS, FRAMES = (512, 320), (304, 208), 13
# Fractions of the memory that diffusers' tiles need.
SHARES = (1, 1.5, 2, 4)
TEMPORAL, LONG = (144, 80), 33
SEAM_TILES = (
    TILED,
    Tiling(height=None, width=216),
    Tiling(height=136, width=None),
    Tiling(height=136, width=216),
    Tiling(height=136, width=168),
    Tiling(height=128, width=128),
)
SCENES = (
    ("red", "circle", "right"),
    ("white", "square", "left"),
    ("green", "triangle", "up"),
    ("yellow", "circle", "down"),
)


def name_of(tiling: Tiling) -> str:
    if tiling == TILED:
        return "256x256, the library's"
    if tiling == UNTILED:
        return "in one piece"
    width, height = ("all" if side is None else str(side) for side in (tiling.width, tiling.height))
    return f"{width}x{height}" + ("" if tiling.frames == 16 else f", {tiling.frames} frames")


def table_of_operations(config: Autoencoder) -> Iterator[str]:
    """The tiles chosen for a 720p video of the 13 B model, and their cost."""
    library = trace_decode(config, Decode(LARGE_VIDEO, tiling=TILED))
    rows: list[tuple[str, Tiling]] = [("", UNTILED), ("", TILED)]
    for free in FREE_GIB:
        chosen = choose_tiling(config, LARGE_VIDEO, 2, free * GIB, max_elements=MAX_ELEMENTS)
        rows.append((f"{free} GiB free", chosen))
    yield "1280x720, 129 frames, the large model in float16; tiles are width x height in pixels"
    yield ""
    yield f"{'':14}{'tiles':26}{'number':>8}{'PFLOP':>8}{'of the library':>16}{'peak, GiB':>11}"
    for label, tiling in rows:
        cost = trace_decode(config, Decode(LARGE_VIDEO, tiling=tiling))
        number = len(tiling.areas(*LARGE_VIDEO[1:])) * len(tiling.lengths(LARGE_VIDEO[0]))
        yield (
            f"{label:14}{name_of(tiling):26}{number:>8}{cost.flops / 1e15:>8.2f}"
            f"{cost.flops / library.flops:>16.2f}{cost.peak_bytes / GIB:>11.2f}"
        )
    yield "Decoding this size without tiles needs a tensor of more than 2^31 - 1 elements, so it is never chosen."


def table_of_seconds(model: LoadedModel, config: Autoencoder, rounds: int) -> Iterator[str]:
    """Time diffusers' tiles and the chosen ones, alternating."""
    latents = encoded(model, four_scenes(TIMED, FRAMES))
    shape = tuple(latents.shape[2:])
    fixed = trace_decode(config, Decode(shape, 4, TILED))
    free = [round(needed_bytes(fixed.peak_bytes) * share) for share in SHARES]
    tilings = [TILED, *(choose_tiling(config, shape, 4, found) for found in free)]
    seconds: list[list[float]] = [[] for _ in tilings]
    for _ in range(rounds):
        for taken, tiling in zip(seconds, tilings, strict=True):
            taken.append(cpu_seconds(model, latents, tiling))
    yield (
        f"{TIMED[0]}x{TIMED[1]}, {FRAMES} frames, the built-in model in float32; "
        f"torch {torch.__version__}, CPU seconds, {rounds} rounds"
    )
    yield ""
    yield f"{'free memory':16}{'tiles':26}{'seconds':>8}{'of the library':>16}{'operations':>12}"
    for label, tiling, taken in zip(("", *(f"{share:g} x needed" for share in SHARES)), tilings, seconds, strict=True):
        flops = trace_decode(config, Decode(shape, 4, tiling)).flops
        yield (
            f"{label:16}{name_of(tiling):26}{min(taken):>8.1f}{min(taken) / min(seconds[0]):>16.2f}"
            f"{flops / fixed.flops:>12.2f}"
        )


def table_of_seams(model: LoadedModel) -> Iterator[str]:
    """Compare frames decoded in tiles with frames decoded without tiles."""
    clips = {"four objects": four_scenes(SEAMS, FRAMES), "one large object": one_scene(SEAMS, FRAMES, 30, 2.5)}
    yield f"{SEAMS[0]}x{SEAMS[1]}, {FRAMES} frames, compared with no spatial tiles: largest difference of 255 levels,"
    yield "share of pixels that differ by more than 8; and each result compared with the original clip"
    for title, clip in clips.items():
        latents = encoded(model, clip)
        whole = frames_of(model, latents, UNTILED)
        yield from compared(title, clip, whole, {t: frames_of(model, latents, t) for t in SEAM_TILES})
    clip = one_scene(TEMPORAL, LONG, 14, 1.2)
    latents = encoded(model, clip)
    whole = frames_of(model, latents, replace(UNTILED, frames=4 * latents.shape[2]))
    found = {t: frames_of(model, latents, t) for t in (replace(UNTILED, frames=frames) for frames in (16, 12, 8))}
    yield ""
    yield f"{TEMPORAL[0]}x{TEMPORAL[1]}, {LONG} frames, temporal tiles of 16, 12 and 8 frames compared with none"
    yield from compared("one object", clip, whole, found)


def compared(title: str, clip: np.ndarray, whole: np.ndarray, found: dict[Tiling, np.ndarray]) -> Iterator[str]:
    """One row per tiling: its difference from frames without tiles, and from the original clip."""
    yield ""
    yield f"{title:30}{'PSNR, dB':>10}{'largest':>9}{'above 8':>9}{'to the clip, dB':>17}"
    yield f"  {'in one piece':28}{'':28}{psnr(whole, clip):>17.2f}"
    for tiling, frames in found.items():
        difference = np.abs(frames - whole)
        share = (difference.max(axis=-1) > 8).mean()
        name = f"{tiling.frames} frames" if (tiling.height, tiling.width) == (None, None) else name_of(tiling)
        yield (
            f"  {name:28}{psnr(frames, whole):>10.2f}{difference.max():>9.0f}{share:>9.2%}{psnr(frames, clip):>17.2f}"
        )


def psnr(found: np.ndarray, expected: np.ndarray) -> float:
    """PSNR in dB of levels 0..255."""
    return 10 * math.log10(255**2 / max(float(np.mean((found - expected) ** 2)), 1e-9))


def one_scene(size: tuple[int, int], frames: int, radius: float, speed: float, what: tuple = SCENES[0]) -> np.ndarray:
    """A clip of an object that crosses the centre: float32 levels 0..255, [frames, height, width, 3]."""
    width, height = size
    scene = Scene(Combination(*what, "navy"), width, height, frames, radius, speed, width / 2, height / 2)
    return np.round(render(scene) * 255)


def four_scenes(size: tuple[int, int], frames: int) -> np.ndarray:
    """A clip of four objects of the size that the autoencoder was trained on, one per quadrant."""
    parts = [one_scene((size[0] // 2, size[1] // 2), frames, 14, 1.2, what) for what in SCENES]
    return np.concatenate([np.concatenate(parts[:2], axis=2), np.concatenate(parts[2:], axis=2)], axis=1)


@torch.no_grad()
def encoded(model: LoadedModel, clip: np.ndarray) -> torch.Tensor:
    """Latents [1, 16, T, H, W] as denoising would return them."""
    vae = model.pipe.vae
    pixels = torch.from_numpy(clip).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    return vae.encode(pixels).latent_dist.mode() * vae.config.scaling_factor


def frames_of(model: LoadedModel, latents: torch.Tensor, tiling: Tiling) -> np.ndarray:
    return np.concatenate(list(decode(model, latents, tiling))).astype(np.float32)


def cpu_seconds(model: LoadedModel, latents: torch.Tensor, tiling: Tiling) -> float:
    began = time.process_time()
    for _ in decode(model, latents, tiling):
        pass
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2, help="rounds for the table of seconds")
    parser.add_argument("--output", type=Path, help=".txt file")
    options = parser.parse_args()

    torch.set_num_threads(1)
    large, tiny = (read_architecture(load_model_config(name)).vae for name in ("hunyuan-video", "tiny"))
    model = LocalBackend(model="tiny", profile="cpu").load()
    lines = []
    for table in (table_of_operations(large), table_of_seconds(model, tiny, options.rounds), table_of_seams(model)):
        for line in [*table, ""]:
            print(line, flush=True)
            lines.append(line.rstrip())
    if options.output is not None:
        options.output.write_text("\n".join(lines[:-1]) + "\n")


if __name__ == "__main__":
    main()
