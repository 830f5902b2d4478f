"""From a request to finished latents: the denoising, as numbered steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import HunyuanVideoPipeline

from ..errors import GenerationCancelledError, InvalidOutputError
from ..resolved import ResolvedRequest
from ..schema import Progress
from .acceleration import RESUMED_WITH_CACHE, step_cache
from .checkpoint import Checkpoint, SavedState
from .memory.device import translated_shortage
from .model import LoadedModel, clean_device
from .preview import Previewer
from .text.prompt_encoder import prompt_notes

OnProgress = Callable[[Progress], None]
OnNote = Callable[[str], None]
IsCancelled = Callable[[], bool]


@dataclass(frozen=True)
class Denoised:
    """Latents float32 [1, 16, (frames-1)/4+1, height/8, width/8], and seconds a stage."""

    latents: torch.Tensor
    encode_s: float
    denoise_s: float
    steps: int = 0


@torch.no_grad()
def denoise(
    model: LoadedModel,
    request: ResolvedRequest,
    render_size: tuple[int, int],
    on_progress: OnProgress,
    on_note: OnNote,
    is_cancelled: IsCancelled,
    checkpoint: Checkpoint | None = None,
    previewer: Previewer | None = None,
) -> Denoised:
    """Run the whole denoising of a request, or what is left of it.

    Args:
        model: a loaded pipeline; used by one call at a time.
        render_size: (width, height) in pixels at which the model renders.
        on_progress: told the stage and each finished step.
        on_note: told what of the prompts is not seen or has no effect, before the first step.
        is_cancelled: asked after every step.
        checkpoint: where the state is kept, and taken up again; None begins and ends with this call.
        previewer: writes pictures of the video as it stands; None writes none.

    Raises:
        GenerationCancelledError: cancelled; the device is left clean.
        ConfigError: the state cannot be saved.
        InvalidOutputError: the latents are not finite.
        GpuMemoryError: the device's memory does not hold the request.
    """
    pipe, checkpoint = model.pipe, checkpoint or Checkpoint()
    width, height = render_size
    generator = torch.Generator("cpu").manual_seed(request.seed)
    for note in prompt_notes(pipe, model.config.prompt_template, request):
        on_note(note)
    saved = _take_up(checkpoint, generator, on_note)
    done = 0 if saved is None else saved.step
    if done == request.num_inference_steps:
        return Denoised(latents=saved.latents, encode_s=0.0, denoise_s=0.0)
    if saved is not None and model.profile.cache is not None:
        on_note(RESUMED_WITH_CACHE)

    # 1. Prompts to embeddings; the text encoders leave the device before anything else comes there.
    on_progress(Progress(stage="encode"))
    began = time.monotonic()
    with translated_shortage("encode"):
        embeds = model.prompts.encode(request, on_note)
    encode_s = time.monotonic() - began
    if is_cancelled():
        raise GenerationCancelledError("cancelled before the first step; no file was kept")

    with (
        clean_device(model, "denoise", "transformer"),
        step_cache(pipe, model.profile.cache, done, request.num_inference_steps),
    ):
        # 2. The schedule: the shift belongs to the scheduler, not to the call. A video that is taken
        #    up again gets the rest of the very sigmas that the pipeline would choose.
        pipe.scheduler.set_shift(request.flow_shift)
        sigmas = np.linspace(1.0, 0.0, request.num_inference_steps + 1)[done:-1]

        # 3. The denoising loop of the pipeline itself. The noise is drawn on the CPU, so that a
        #    seed means the same noise on every device.
        began = time.monotonic()
        latents = pipe(
            **embeds,
            width=width,
            height=height,
            num_frames=request.num_frames,
            num_inference_steps=len(sigmas),
            sigmas=sigmas,
            latents=None if saved is None else saved.latents,
            guidance_scale=request.guidance_scale,
            true_cfg_scale=request.true_cfg_scale,
            generator=generator,
            output_type="latent",
            return_dict=False,
            callback_on_step_end=_StepWatcher(
                request, done, generator, checkpoint, previewer, on_progress, is_cancelled
            ),
        )[0]
    return Denoised(latents, encode_s, denoise_s=time.monotonic() - began, steps=len(sigmas))


def _take_up(checkpoint: Checkpoint, generator: torch.Generator, on_note: OnNote) -> SavedState | None:
    """The state of an earlier run, said aloud."""
    saved, problem = checkpoint.load()
    if problem is not None:
        on_note(problem)
    if saved is not None:
        generator.set_state(saved.generator)
        on_note(f"going on after step {saved.step}, saved in {checkpoint.path or 'memory'}")
    return saved


class _StepWatcher:
    """Called by the pipeline after every step: reports it, saves the state, and stops what should not go on."""

    def __init__(
        self,
        request: ResolvedRequest,
        first: int,
        generator: torch.Generator,
        checkpoint: Checkpoint,
        previewer: Previewer | None,
        on_progress: OnProgress,
        is_cancelled: IsCancelled,
    ):
        self.seed, self.total, self.first = request.seed, request.num_inference_steps, first
        self.generator, self.checkpoint, self.previewer = generator, checkpoint, previewer
        self.on_progress, self.is_cancelled = on_progress, is_cancelled
        self.began = time.monotonic()
        on_progress(Progress(stage="denoise", step=first, total=self.total))

    def __call__(self, pipe: HunyuanVideoPipeline, index: int, timestep: Any, tensors: dict) -> dict:
        done = self.first + index + 1
        if not torch.isfinite(tensors["latents"]).all():
            raise InvalidOutputError(
                f"the latents are NaN or infinite after step {done} of {self.total}; likely causes: a precision that "
                "overflows (the transformer must be bfloat16 or float32, never float16), damaged weights, or "
                "weights of another model"
            )
        state = SavedState(done, tensors["latents"].float().cpu(), self.generator.get_state())
        self.checkpoint.keep(state, self.total, self.seed)
        preview = None
        if self.previewer is not None:
            preview = self.previewer.see(done, self.total, tensors["latents"], pipe.scheduler.sigmas)
        each = (time.monotonic() - self.began) / (index + 1)
        self.on_progress(
            Progress(
                stage="denoise",
                step=done,
                total=self.total,
                seconds_per_step=each,
                seconds_left=each * (self.total - done),
                preview=preview,
            )
        )
        if self.is_cancelled():
            self.checkpoint.save(self.seed)
            raise GenerationCancelledError(f"cancelled after step {done} of {self.total}; no file was kept")
        return {}
