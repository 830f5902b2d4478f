"""The plain diffusers script: from_pretrained, pipe(), export_to_video, as in diffusers' documentation.

Two things differ, so that the videos are comparable: the tokenizer is loaded with the class that reads it correctly
(transformers 5 misreads it through ``model_index.json``), and the prompt template is the checkpoint's. Run as
``python -m versus.stock JOB.json VIDEO.mp4 STAGES.json``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from .job import Job
from .stages import Stages


def make_pipeline(job: Job) -> Any:
    """diffusers' pipeline with the job's weights."""
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, HunyuanVideoPipeline, HunyuanVideoTransformer3DModel
    from transformers import PreTrainedTokenizerFast

    folder = Path(job.folder)
    pipe = HunyuanVideoPipeline.from_pretrained(
        folder,
        transformer=HunyuanVideoTransformer3DModel.from_pretrained(
            folder, subfolder="transformer", dtype=getattr(torch, job.transformer)
        ),
        tokenizer=PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer"),
        scheduler=FlowMatchEulerDiscreteScheduler.from_pretrained(
            folder, subfolder="scheduler", shift=job.request["flow_shift"]
        ),
        dtype=torch.float32,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def call(pipe: Any, job: Job, **options: Any) -> Any:
    """The frames of one video in the format ``output_type`` (default: PIL images)."""
    import torch

    request = job.request
    return pipe(
        prompt=request["prompt"],
        width=request["width"],
        height=request["height"],
        num_frames=request["num_frames"],
        num_inference_steps=request["num_inference_steps"],
        guidance_scale=request["guidance_scale"],
        generator=torch.Generator("cpu").manual_seed(request["seed"]),
        prompt_template=job.template,
        **options,
    ).frames[0]


def main() -> None:
    """Generate the video."""
    job, output, record = Job.load(Path(sys.argv[1])), sys.argv[2], Path(sys.argv[3])
    stages = Stages()
    stages.enter("import")
    from diffusers import HunyuanVideoPipeline  # noqa: F401
    from diffusers.utils import export_to_video

    stages.enter("load")
    pipe = make_pipeline(job)
    _watch(pipe, stages)
    stages.enter("encode")
    frames = call(pipe, job)
    stages.enter("write")
    export_to_video(frames, output, fps=job.request["fps"])
    stages.enter(None)
    stages.save(record)


def _watch(pipe: Any, stages: Stages) -> None:
    """Time the stages separately by wrapping the pipeline's call for each."""
    encode, decode = pipe.encode_prompt, pipe.vae.decode

    def encode_prompt(*arguments: Any, **options: Any) -> Any:
        found = encode(*arguments, **options)
        stages.enter("denoise")
        return found

    def decode_latents(*arguments: Any, **options: Any) -> Any:
        stages.enter("decode")
        return decode(*arguments, **options)

    pipe.encode_prompt, pipe.vae.decode = encode_prompt, decode_latents


if __name__ == "__main__":
    main()
