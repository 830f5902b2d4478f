"""From a request to finished latents: one loop for every model, in numbered steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

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
    """Latents [1, 16, (frames-1)/4+1, height/8, width/8], the duration of each stage, and the steps of this run."""

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
    """Run the whole denoising of a request, or the rest of it if there is a saved state.

    A resumed run gives the same latents as an uninterrupted one, to the last bit, unless a step cache is on.

    Args:
        model: a loaded model; used by one call at a time.
        render_size: (width, height) in pixels at which the model renders.
        on_progress: called with the stage, and after each step.
        on_note: called before the first step with parts of the prompts that are cut off or have no effect, and when
            the attention kernel is replaced.
        is_cancelled: polled after every step.
        checkpoint: stores the state, and provides it at the start; None keeps it only during this call.
        previewer: writes previews of the unfinished video; None writes none.

    Raises:
        GenerationCancelledError: cancelled; the device is left clean.
        ConfigError: the state cannot be saved.
        InvalidOutputError: the latents are not finite.
        GpuMemoryError: the request does not fit in the device's memory.
    """
    pipe, family, checkpoint = model.pipe, model.family, checkpoint or Checkpoint()
    device, total = model.placement.device_of("transformer"), request.num_inference_steps
    generator = torch.Generator("cpu").manual_seed(request.seed)
    for note in prompt_notes(pipe, model.config.prompt_template, request):
        on_note(note)
    saved = _saved_state(checkpoint, generator, on_note)
    done = 0 if saved is None else saved.step
    if saved is not None and done == total:
        return Denoised(latents=saved.latents, encode_s=0.0, denoise_s=0.0)
    if saved is not None and model.profile.cache is not None:
        on_note(RESUMED_WITH_CACHE)

    # 1. Prompts to embeddings. The text encoders leave the device before the transformer arrives.
    on_progress(Progress(stage="encode"))
    began = time.monotonic()
    with translated_shortage("encode"):
        embeds = model.encode(request, on_note)
    encode_s = time.monotonic() - began
    if is_cancelled():
        raise GenerationCancelledError("cancelled before the first step; no file was kept")

    began = time.monotonic()
    with (
        clean_device(model, "denoise", "transformer"),
        step_cache(pipe, model.profile.cache, done, total),
        model.kernel.reporting(on_note),
    ):
        # 2. The schedule: the remaining part of the whole video's noise levels. The scheduler applies the shift
        #    s: sigma -> s * sigma / (1 + (s - 1) * sigma).
        scheduler = pipe.scheduler
        scheduler.set_shift(request.flow_shift)
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.0, total + 1)[done:-1], device=device)
        scheduler.set_begin_index(0)

        # 3. The initial noise, drawn on the CPU so that a seed gives the same noise on every device; or the saved
        #    latents. In each step the scheduler rounds latents and timesteps to the transformer's precision.
        if saved is None:
            shape = family.latents_shape(pipe, render_size, request.num_frames)
            latents = torch.randn(shape, generator=generator, dtype=torch.float32).to(device)
        else:
            latents = saved.latents.to(device, pipe.transformer.dtype)
        conditions = family.conditions(pipe, embeds, request)

        # 4. The loop: a prediction, the scheduler's step, then checkpoint, preview and progress.
        watcher = _Watcher(request, done, checkpoint, previewer, on_progress)
        for timestep in scheduler.timesteps:
            velocity = family.predict(
                pipe.transformer, latents, timestep.expand(len(latents)).to(latents.dtype), conditions
            )
            latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
            watcher.see(latents, generator, scheduler.sigmas)
            if is_cancelled():
                raise GenerationCancelledError(f"cancelled after step {watcher.done} of {total}; no file was kept")
    return Denoised(latents, encode_s, denoise_s=time.monotonic() - began, steps=total - done)


def _saved_state(checkpoint: Checkpoint, generator: torch.Generator, on_note: OnNote) -> SavedState | None:
    """The state of an earlier run; notes that it is used, or why not."""
    saved, problem = checkpoint.load()
    if problem is not None:
        on_note(problem)
    if saved is not None:
        generator.set_state(saved.generator)
        on_note(f"resuming after step {saved.step}, saved in {checkpoint.path or 'memory'}")
    return saved


class _Watcher:
    """Handles the latents after every step: rejects broken ones, saves, previews and reports progress."""

    def __init__(
        self,
        request: ResolvedRequest,
        done: int,
        checkpoint: Checkpoint,
        previewer: Previewer | None,
        on_progress: OnProgress,
    ):
        self.done, self._first, self._total, self._seed = done, done, request.num_inference_steps, request.seed
        self._checkpoint, self._previewer, self._on_progress = checkpoint, previewer, on_progress
        self._began = time.monotonic()
        on_progress(Progress(stage="denoise", step=done, total=self._total))

    def see(self, latents: torch.Tensor, generator: torch.Generator, sigmas: torch.Tensor) -> None:
        """Handle one finished step.

        Raises:
            InvalidOutputError: the latents are not finite.
            ConfigError: the state cannot be saved.
        """
        self.done += 1
        if not torch.isfinite(latents).all():
            raise InvalidOutputError(
                f"the latents are NaN or infinite after step {self.done} of {self._total}; likely causes: a precision "
                "that overflows (the transformer must be bfloat16 or float32, never float16), damaged weights, or "
                "weights of another model"
            )
        state = SavedState(self.done, latents.float().cpu(), generator.get_state())
        self._checkpoint.keep(state, self._total, self._seed)
        preview = None
        if self._previewer is not None:
            preview = self._previewer.see(self.done, self._total, latents, sigmas)
        each = (time.monotonic() - self._began) / (self.done - self._first)
        self._on_progress(
            Progress(
                stage="denoise", step=self.done, total=self._total, seconds_per_step=each,
                seconds_left=each * (self._total - self.done), preview=preview,
            )
        )  # fmt: skip
