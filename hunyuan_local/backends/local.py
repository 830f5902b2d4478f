"""Makes videos on this machine: loads the model once, then request by request to an mp4.

The order of the work is here; the work itself is in ``pipeline/``, ``gate`` and ``video``.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..capabilities import Capabilities, fit
from ..config import ModelConfig, load_model_config, load_profile
from ..errors import GenerationCancelledError, InvalidOutputError
from ..gate import FrameGate
from ..provenance import ModelIdentity, Provenance, library_versions, statement, weights_identity
from ..schema import GenerationRequest, GenerationResult, Progress, Timings
from ..video import VideoWriter, check_output_path
from .base import Explanation, GenerationContext, explanation, with_seed

if TYPE_CHECKING:
    from ..pipeline.checkpoint import Checkpoint
    from ..pipeline.loader import LoadedModel
    from ..pipeline.runner import Denoised


@dataclass(frozen=True)
class _Run:
    """What is known of one video once its latents are there."""

    request: GenerationRequest
    output: Path
    render_size: tuple[int, int]
    notes: list[str]
    context: GenerationContext
    began: float
    loaded: float


class LocalBackend:
    """The pipeline of diffusers on a local GPU or CPU.

    Args:
        model: a name from ``configs/models``, a folder in diffusers' layout, a Hub id, or a whole
            config. None is ``hunyuan-video`` where there is a CUDA device, else ``tiny``.
        profile: a name from ``configs/profiles``; None chooses by the machine.
        revision: branch, tag or commit of a Hub repository; None is what the model's config says.

    Raises:
        ConfigError: unknown model or profile, or a revision of a folder.
    """

    name = "local"

    def __init__(self, model: str | ModelConfig | None = None, profile: str | None = None, revision: str | None = None):
        if model is None:
            from ..pipeline.memory import default_model

            model = default_model()
        self.config = model if isinstance(model, ModelConfig) else load_model_config(model)
        if revision is not None:
            self.config = self.config.with_revision(revision)
        self._profile = None if profile is None else load_profile(profile)
        self._loaded: LoadedModel | None = None

    @property
    def capabilities(self) -> Capabilities:
        """See :class:`hunyuan_local.backends.base.Backend`: all that a request allows."""
        return Capabilities(defaults=dict(self.config.defaults))

    @property
    def device(self) -> str:
        """What the model runs on, once it is loaded."""
        from ..pipeline.memory import device_name

        return "not loaded" if self._loaded is None else device_name(self._loaded.profile)

    def memory(self) -> tuple[int, int] | None:
        """The most bytes of the device that were taken so far, and all it has; None where it does not count."""
        from ..pipeline.memory import device_memory

        return None if self._loaded is None else device_memory(self._loaded.profile)

    def explain(self, request: GenerationRequest) -> Explanation:
        """See :class:`hunyuan_local.backends.base.Backend`; the body is the request, complete."""
        fitted = fit(request, self.name, self.capabilities)
        resolved = self.resolve(fitted.request)
        notes = self._notes(resolved, self.config.render_size(resolved.width, resolved.height))
        body = resolved.model_dump()
        return explanation(self.name, fitted, self.capabilities, url=None, body=body, notes=notes)

    def resolve(self, request: GenerationRequest) -> GenerationRequest:
        """The request with the model's defaults and a random seed where nothing was given."""
        return with_seed(request, self.capabilities).with_defaults(self.capabilities.defaults)

    def load(self, context: GenerationContext | None = None) -> LoadedModel:
        """Load the model, or return the loaded one."""
        from ..pipeline.loader import load_model
        from ..pipeline.memory import default_profile

        if self._loaded is None:
            context = context or GenerationContext()
            context.on_progress(Progress(stage="load"))
            profile = self._profile or default_profile()
            self._loaded = load_model(self.config, profile, context.on_progress, context.on_note)
        return self._loaded

    def generate(self, request: GenerationRequest, context: GenerationContext | None = None) -> GenerationResult:
        """Make one video; see :class:`hunyuan_local.backends.base.Backend`."""
        from ..pipeline.runner import denoise

        context = context or GenerationContext()
        began = time.monotonic()

        # 1. Everything that can be refused is refused before any weight is read. A seed that was
        #    drawn for this request before an interruption is kept.
        checkpoint = self._checkpoint(request, context)
        if request.seed is None and checkpoint is not None:
            request = request.replace(seed=checkpoint.seed())
        request = self.resolve(request)
        output = context.output or _default_output(self.config.name, request.seed)
        check_output_path(output, context.overwrite)
        render_size = self.config.render_size(request.width, request.height)
        notes: list[str] = []

        def note(text: str) -> None:
            notes.append(text)
            context.on_note(text)

        for text in self._notes(request, render_size):
            note(text)

        # 2. The model.
        model = self.load(context)
        loaded = time.monotonic()

        # 3. Noise to latents.
        if checkpoint is not None:
            checkpoint.facts = self._facts(model, request, render_size)
        denoised = denoise(model, request, render_size, context.on_progress, note, context.cancel.is_set, checkpoint)

        # 4. Latents to a file; until it is there, the saved latents stay.
        try:
            result = self._write(_Run(request, output, render_size, notes, context, began, loaded), model, denoised)
        except InvalidOutputError:
            if checkpoint is not None:
                checkpoint.delete()  # the same latents would give the same video
            raise
        if checkpoint is not None:
            checkpoint.delete()
        return result

    def _write(self, run: _Run, model: LoadedModel, denoised: Denoised) -> GenerationResult:
        """Decode to the file piece by piece, let it say how it was made, and give it its name."""
        request, context = run.request, run.context
        writer = VideoWriter(
            run.output,
            frame_size=run.render_size,
            size=(request.width, request.height),
            fps=request.fps,
            overwrite=context.overwrite,
        )
        with writer:
            decode_began = time.monotonic()
            digest, gate = hashlib.sha256(), FrameGate()
            for frames in self._frames(model, denoised.latents, request.num_frames, context):
                gate.check(frames)
                digest.update(frames.tobytes())
                writer.write(frames)
            gate.finish()
            decoded = time.monotonic()
            # The time to finish the file is only known to the result.
            timings = Timings(
                load_s=run.loaded - run.began,
                encode_s=denoised.encode_s,
                denoise_s=denoised.denoise_s,
                denoise_steps=denoised.steps,
                decode_s=decoded - decode_began,
                total_s=decoded - run.began,
            )
            provenance = self._provenance(model, run, timings, digest.hexdigest())
            context.on_progress(Progress(stage="write"))
            writer.finish(provenance.model_dump_json())
        ended = time.monotonic()
        return GenerationResult(
            path=run.output.resolve(),
            backend=self.name,
            model=self.config.name,
            seed=request.seed,
            request=request,
            video=writer.info,
            timings=timings.model_copy(update={"write_s": ended - decoded, "total_s": ended - run.began}),
            notes=run.notes,
            provenance=provenance.model_dump(mode="json"),
        )

    def close(self) -> None:
        """Let go of the model and of the device memory it held."""
        self._loaded = None
        from ..pipeline.memory import free_device

        free_device()

    def _checkpoint(self, request: GenerationRequest, context: GenerationContext) -> Checkpoint | None:
        """Named by what was asked, so that the same command finds it; its content is checked at the load."""
        if context.checkpoint_dir is None:
            return None
        from ..pipeline.checkpoint import Checkpoint, key_of

        output = "" if context.output is None else os.path.abspath(context.output)
        key = key_of(request.model_dump_json(), self.config.model_dump_json(), output)
        return Checkpoint(context.checkpoint_dir, key, context.checkpoint_every)

    def _facts(self, model: LoadedModel, request: GenerationRequest, render_size: tuple[int, int]) -> dict[str, str]:
        """What must be the same for the rest of the steps to give the same frames."""
        versions = library_versions()
        return {
            "request": request.model_dump_json(),
            "size": str(render_size),
            "weights": weights_identity(model.folder),
            "profile": model.profile.model_dump_json(),
            "device": self.device,
        } | {name: versions[name] for name in ("torch", "diffusers", "transformers", "tokenizers")}

    def _frames(
        self, model: LoadedModel, latents: object, num_frames: int, context: GenerationContext
    ) -> Iterator[np.ndarray]:
        """Decoded pieces, with progress, and a look at the cancel switch after each."""
        from ..pipeline.decoder import decode

        done = 0
        context.on_progress(Progress(stage="decode", total=num_frames))
        for frames in decode(model, latents):
            if context.cancel.is_set():
                raise GenerationCancelledError(f"cancelled while decoding, at frame {done}; no file was kept")
            yield frames
            done += len(frames)
            context.on_progress(Progress(stage="decode", step=done, total=num_frames))

    def _provenance(self, model: LoadedModel, run: _Run, timings: Timings, frames_sha256: str) -> Provenance:
        from ..pipeline.memory import device_name

        return statement(
            backend=self.name,
            request=run.request,
            model=ModelIdentity(name=self.config.name, config=self.config, weights=weights_identity(model.folder)),
            profile=model.profile.name,
            device=device_name(model.profile),
            render_size=run.render_size,
            timings=timings,
            frames_sha256=frames_sha256,
            notes=run.notes,
        )

    def _notes(self, request: GenerationRequest, render_size: tuple[int, int]) -> list[str]:
        notes = self.config.notices
        if render_size != (request.width, request.height):
            factor = min(request.width / render_size[0], request.height / render_size[1])
            notes.append(
                f"{self.config.name} renders at {render_size[0]}x{render_size[1]}; the encoder scales up about "
                f"{factor:.1f} times to {request.width}x{request.height}"
            )
        return notes


def _default_output(model: str, seed: int | None) -> Path:
    return Path(f"{Path(model).name}-{datetime.now():%Y%m%d-%H%M%S}-{seed}.mp4")
