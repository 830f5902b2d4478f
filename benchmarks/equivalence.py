"""Compares every way to run the built-in model with diffusers' own pipeline, on the same requests.

The reference is diffusers' ``HunyuanVideoPipeline``, loaded separately in float32, with its mask. Exact ways may differ
by a few of 255 levels at most; lossy ways have a bound in dB, and with ``--quality N`` they also generate N of the 216
combinations, which are judged as in ``tiny_quality.py``.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import HunyuanVideoPipeline
from diffusers.utils import logging as diffusers_logging

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from right_videos import count_right

from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.backends.local.profile_choice import with_cache
from hunyuan_local.config import RuntimeProfile, cache_names, load_cache, load_profile
from hunyuan_local.config.tiling import Tiling
from hunyuan_local.errors import GenerationCancelledError
from hunyuan_local.pipeline.checkpoint import Checkpoint
from hunyuan_local.pipeline.decode import decode
from hunyuan_local.pipeline.denoise import denoise
from hunyuan_local.schema import GenerationRequest, Progress

CPU = load_profile("cpu").model_copy(update={"prompt_cache": False})
REQUESTS = tuple(
    GenerationRequest(prompt=prompt, width=width, height=height, num_frames=17, num_inference_steps=8, seed=seed)
    for seed, (prompt, width, height) in enumerate(
        [
            ("a red circle moving right on a black background", 144, 80),
            ("a blue square moving up on a grey background", 80, 144),
            ("a yellow triangle moving left on a navy background", 144, 80),
        ]
    )
)
MOSAIC = 2  # repeats of the latents in height and width, so that the frames are large enough to be tiled


@dataclass(frozen=True)
class Way:
    """One way to generate a video.

    Attributes:
        name: name in the table.
        profile: fields of the profile that differ from ``cpu``.
        levels: largest allowed difference from the reference for an exact way, of 255.
        least_psnr_db: bound for a lossy way, over all frames of all requests.
        tiling: VAE tiling; None decodes without tiles.
        stop_after: step after which denoising is interrupted and resumed from the file.
        mosaic: decode the first request's latents repeated, because the built-in model cannot draw larger sizes.
    """

    name: str
    profile: dict[str, Any] = field(default_factory=dict)
    levels: int | None = None
    least_psnr_db: float | None = None
    tiling: Tiling | None = None
    stop_after: int | None = None
    mosaic: bool = False

    def backend(self) -> LocalBackend:
        """A separate backend."""
        return LocalBackend("tiny", RuntimeProfile(**(dict(CPU) | {"name": self.name} | self.profile)))


def ways() -> list[Way]:
    """All rows of the table."""
    exact = [
        Way("no offload", levels=1),
        Way("offload model", {"offload": "model"}, levels=1),
        Way("offload group, block level", {"offload": "group"}, levels=1),
        Way("offload group, leaf level", {"offload": "group", "group": {"level": "leaf"}}, levels=1),
        Way("offload group to disk", {"offload": "group", "group": {"to_disk": True}}, levels=1),
        Way("offload sequential", {"offload": "sequential"}, levels=1),
        Way("text encoders on the CPU", {"placement": {"text_encoder": "cpu", "text_encoder_2": "cpu"}}, levels=1),
        Way("prompts from the cache", {"prompt_cache": True}, levels=1),
        Way("resumed after step 3", levels=1, stop_after=3),
        Way("compiled blocks", {"compile": True}, levels=1),
        Way("VAE tiles of 160x128", levels=32, tiling=Tiling(height=128, width=160), mosaic=True),
    ]
    model = LocalBackend("tiny", "cpu").config
    half = {"dtypes": dict(CPU.dtypes) | {"transformer": "bfloat16"}}
    lossy = [
        Way("transformer in bfloat16", half, least_psnr_db=50),
        Way("fp8 (float8 storage)", {"quantization": "fp8"}, least_psnr_db=45),
        Way("fp8-weights (torchao)", {"quantization": "fp8-weights"}, least_psnr_db=42),
        Way("int8 (torchao)", {"quantization": "int8"}, least_psnr_db=50),
        Way("int8-dynamic (torchao)", {"quantization": "int8-dynamic"}, least_psnr_db=50),
    ]
    for name in cache_names():
        cache = with_cache(CPU, load_cache(name), model).cache
        lossy.append(Way(f"cache {name}", {"cache": cache}, least_psnr_db=44 if name.endswith("conservative") else 40))
    return [*exact, *lossy]


def make(way: Way, request: GenerationRequest, backend: LocalBackend) -> np.ndarray:
    """uint8 frames [n, H, W, 3] of one request."""
    model, request = backend.load(), backend.resolve(request)
    size = (request.width, request.height)
    ignore: Callable[[object], None] = lambda value: None  # noqa: E731
    if way.stop_after is None:
        denoised = denoise(model, request, size, ignore, ignore, lambda: False)
    else:
        with tempfile.TemporaryDirectory() as folder:
            reached: list[int] = []
            watch: Callable[[Progress], None] = lambda progress: reached.append(progress.step)  # noqa: E731
            stop = lambda: max(reached) >= way.stop_after  # noqa: E731
            with contextlib.suppress(GenerationCancelledError):
                denoise(model, request, size, watch, ignore, stop, Checkpoint(Path(folder), "k"))
            denoised = denoise(model, request, size, ignore, ignore, lambda: False, Checkpoint(Path(folder), "k"))
    latents = denoised.latents.repeat(1, 1, 1, MOSAIC, MOSAIC) if way.mosaic else denoised.latents
    return np.concatenate(list(decode(model, latents, way.tiling)))


def library_latents(pipe: HunyuanVideoPipeline, backend: LocalBackend, request: GenerationRequest) -> torch.Tensor:
    """float32 latents [1, 16, T, H, W] from diffusers' own call."""
    request = backend.resolve(request)
    pipe.scheduler.set_shift(request.flow_shift)
    return pipe(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        width=request.width,
        height=request.height,
        num_frames=request.num_frames,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale,
        true_cfg_scale=request.true_cfg_scale,
        generator=torch.Generator("cpu").manual_seed(request.seed),
        prompt_template=backend.config.prompt_template.model_dump(),
        output_type="latent",
    ).frames


@torch.no_grad()
def reference(
    pipe: HunyuanVideoPipeline, backend: LocalBackend, request: GenerationRequest, mosaic: bool = False
) -> np.ndarray:
    """diffusers' own call and decoding, without tiles."""
    latents = library_latents(pipe, backend, request)
    if mosaic:
        latents = latents.repeat(1, 1, 1, MOSAIC, MOSAIC)
    video = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    return (pipe.video_processor.postprocess_video(video, output_type="np")[0] * 255).round().astype(np.uint8)


def references(pipe: HunyuanVideoPipeline, backend: LocalBackend, requests: Sequence[GenerationRequest]) -> References:
    """The reference: the frames of each request, and of the mosaic."""
    frames = {request: reference(pipe, backend, request) for request in requests}
    return References(frames, reference(pipe, backend, requests[0], mosaic=True))


def library_pipeline(backend: LocalBackend) -> HunyuanVideoPipeline:
    """diffusers' pipeline, loaded separately; only the tokenizers, which it would misread, are ours."""
    diffusers_logging.disable_progress_bar()
    pipe = backend.load().pipe
    made = HunyuanVideoPipeline.from_pretrained(
        backend.config.source, tokenizer=pipe.tokenizer, tokenizer_2=pipe.tokenizer_2
    )
    made.set_progress_bar_config(disable=True)
    return made


@dataclass(frozen=True)
class References:
    """uint8 frames [n, H, W, 3] of each request, and of the mosaic of the first."""

    frames: dict[GenerationRequest, np.ndarray]
    mosaic: np.ndarray


@dataclass(frozen=True)
class Measured:
    """Difference between a way's frames and the reference."""

    largest: int
    mean_square: float

    @property
    def psnr_db(self) -> float:
        """PSNR over all frames; infinite if they are equal."""
        return math.inf if self.mean_square == 0 else 10 * math.log10(255**2 / self.mean_square)


def measure(way: Way, references: References) -> Measured:
    """Generate the requests that have a reference, and compare them."""
    backend = way.backend()
    wanted = references.frames
    if way.mosaic:
        wanted = {next(iter(wanted)): references.mosaic}
    found = [(make(way, request, backend), expected) for request, expected in wanted.items()]
    backend.close()
    differences = [np.abs(a.astype(int) - b) for a, b in found]
    mean_square = float(np.mean([np.mean(d.astype(float) ** 2) for d in differences]))
    return Measured(int(max(d.max() for d in differences)), mean_square)


def holds(way: Way, measured: Measured) -> bool:
    """Whether the way is within its bound."""
    if way.levels is not None:
        return measured.largest <= way.levels
    return measured.psnr_db >= way.least_psnr_db


def quality(way: Way, count: int) -> float:
    """Percent of ``count`` combinations with correct colour, shape, direction and background."""
    backend = way.backend()
    right = count_right(backend, 8, count)
    backend.close()
    return 100 * right / count


def table(rows: Sequence[dict[str, Any]]) -> str:
    """One line per way."""
    lines = [f"{'way':32}{'largest':>8}{'PSNR dB':>9}  {'bound':13}{'held':5}{'all right':>9}"]
    for row in rows:
        psnr = "inf" if math.isinf(row["psnr_db"]) else f"{row['psnr_db']:.1f}"
        right = "" if row["quality"] is None else f"{row['quality']:.0f} %"
        held = "yes" if row["held"] else "NO"
        lines.append(f"{row['way']:32}{row['largest']:>8}{psnr:>9}  {row['bound']:13}{held:5}{right:>9}")
    return "\n".join(line.rstrip() for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="only ways whose name contains this text")
    parser.add_argument("--quality", type=int, choices=range(217), default=0, metavar="N",
                        help="also judge N of the 216 combinations by each lossy way")  # fmt: skip
    parser.add_argument("--output", type=Path, help=".txt file; a .json file with all numbers is written next to it")
    options = parser.parse_args()

    plain = LocalBackend("tiny", CPU)
    library = library_pipeline(plain)
    expected = references(library, plain, REQUESTS)
    rows = []
    for way in ways():
        if options.only and options.only not in way.name:
            continue
        measured = measure(way, expected)
        bound = f"{way.levels} of 255" if way.levels is not None else f"{way.least_psnr_db:g} dB"
        judged = options.quality and (way.least_psnr_db is not None or way.name == "no offload")
        row = dataclasses.asdict(measured) | {"way": way.name, "psnr_db": measured.psnr_db, "bound": bound}
        rows.append(row | {"held": holds(way, measured), "quality": quality(way, options.quality) if judged else None})
        print(table(rows[-1:]).splitlines()[1], flush=True)
    text = (
        f"tiny, {len(REQUESTS)} videos of 17 frames and 8 steps, compared with diffusers' own pipeline; largest: "
        f"of 255 levels\nall right: of {options.quality} combinations, colour, shape, direction and background\n\n"
        f"{table(rows)}\n"
    )
    print(f"\n{text}")
    if options.output is not None:
        options.output.write_text(text)
        for row in rows:
            row["psnr_db"] = None if math.isinf(row["psnr_db"]) else row["psnr_db"]
        options.output.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
