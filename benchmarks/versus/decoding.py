"""Latents to a finished file, by the plain script's calls and by ours; each in a process of its own.

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
    "tiled": "the same, vae.enable_tiling()",  # the library's own spatial tiles, which it leaves off unless told
    "ours": "this package",
    "returned": "the same, freed memory returned",
}
# Ours cuts the picture as on a device that has this much free beside the weights: a quarter of what whole pictures
# take at 1280x720, less what any process with torch holds.
FREE_BYTES = 2 * 2**30


@torch.no_grad()
def plain(job: Job, latents: torch.Tensor, output: Path, stages: Stages, tiled: bool) -> None:
    """vae.decode, then export_to_video, as the pipeline and its documentation do it."""
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
    """The last two stages of ``generate``, in the tiles that it chooses where ``FREE_BYTES`` are free.

    Args:
        returned: let the C library give freed memory back to the system, as it does where nobody tells it otherwise.
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
        for parameter in (-1, -3):  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD, of which glibc's own value is 128 KiB
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
