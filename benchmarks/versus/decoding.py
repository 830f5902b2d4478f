"""From latents to a finished file, with the plain script's calls and with ours, each in a separate process.

Run as ``python -m versus.decoding JOB.json WAY LATENTS.pt VIDEO.mp4 STAGES.json``, with one of ``WAYS``.
"""

from __future__ import annotations

import ctypes
import sys
import time
from pathlib import Path

import torch

from .job import Job
from .ours import make_backend, model_config
from .stages import Stages

WAYS = {
    "stock": "vae.decode + export_to_video",
    "tiled": "the same, vae.enable_tiling()",  # diffusers' spatial tiles, which are off by default
    "ours": "this package",
    "returned": "the same, freed memory returned",
}
# Our tiles are chosen for a device with this much memory free besides the weights: a quarter of what 1280x720 takes
# without tiles, minus the base memory of a process with torch.
FREE_BYTES = 2 * 2**30


@torch.no_grad()
def plain(job: Job, latents: torch.Tensor, output: Path, stages: Stages, tiled: bool) -> None:
    """vae.decode, then export_to_video, as in the pipeline and its documentation."""
    from diffusers import AutoencoderKLHunyuanVideo
    from diffusers.utils import export_to_video
    from diffusers.video_processor import VideoProcessor

    stages.enter("load")
    vae = AutoencoderKLHunyuanVideo.from_pretrained(job.folder, subfolder="vae")
    if tiled:
        vae.enable_tiling()
    stages.enter("decode")
    video = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
    frames = VideoProcessor(vae_scale_factor=8).postprocess_video(video, output_type="pil")[0]
    stages.enter("write")
    export_to_video(frames, str(output), fps=job.request["fps"])


def ours(job: Job, latents: torch.Tensor, output: Path, stages: Stages, returned: bool) -> None:
    """The last two stages of ``generate``, with the tiles that it chooses for ``FREE_BYTES`` of free memory.

    Args:
        returned: let the C library return freed memory to the system, which is its default.
    """
    from hunyuan_local.backends.base import GenerationContext
    from hunyuan_local.backends.begin import Run
    from hunyuan_local.backends.local.decode_and_write import finish
    from hunyuan_local.pipeline.denoise import Denoised
    from hunyuan_local.planner.checkpoint import read_architecture
    from hunyuan_local.planner.tiles import choose_tiling
    from hunyuan_local.resolved import ResolvedRequest

    stages.enter("load")
    model, request = make_backend(job).load(), ResolvedRequest(**job.request)
    if returned:
        for parameter in (-1, -3):  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD; glibc's default is 128 KiB
            ctypes.CDLL(None).mallopt(parameter, 128 * 1024)
    vae = read_architecture(model_config(job)).vae
    tiling = choose_tiling(vae, tuple(latents.shape[2:]), latents.element_size(), FREE_BYTES)
    context = GenerationContext(output, overwrite=True, on_progress=lambda progress: stages.enter(progress.stage))
    now = time.monotonic()
    finish(Run(request, output, context, now, loaded=now), model, Denoised(latents, 0, 0), tiling)


def main() -> None:
    """Decode and write."""
    way, paths = sys.argv[2], [Path(name) for name in sys.argv[3:]]
    job, latents, stages = Job.load(Path(sys.argv[1])), torch.load(paths[0]), Stages()
    if way in ("ours", "returned"):
        ours(job, latents, paths[1], stages, returned=way == "returned")
    else:
        plain(job, latents, paths[1], stages, tiled=way == "tiled")
    stages.enter(None)
    stages.save(paths[2])


if __name__ == "__main__":
    main()
