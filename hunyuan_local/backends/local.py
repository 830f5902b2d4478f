"""Makes videos on this machine: loads the model once, then request by request to an mp4.

The order of the work is here; the work itself is in ``pipeline/``, ``gate`` and ``video``.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..capabilities import Capabilities, fit
from ..config import ModelConfig, load_model_config, load_profile
from ..errors import GenerationCancelledError
from ..gate import FrameGate
from ..provenance import ModelIdentity, Provenance, statement, weights_identity
from ..schema import GenerationRequest, GenerationResult, Progress, Timings
from ..video import VideoWriter, check_output_path
from .base import Explanation, GenerationContext, explanation, with_seed

if TYPE_CHECKING:
    from ..pipeline.loader import LoadedModel


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
            (context or GenerationContext()).on_progress(Progress(stage="load"))
            self._loaded = load_model(self.config, self._profile or default_profile())
        return self._loaded

    def generate(self, request: GenerationRequest, context: GenerationContext | None = None) -> GenerationResult:
        """Make one video; see :class:`hunyuan_local.backends.base.Backend`."""
        from ..pipeline.runner import denoise

        context = context or GenerationContext()
        began = time.monotonic()

        # 1. Everything that can be refused is refused before any weight is read.
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
        denoised = denoise(model, request, render_size, context.on_progress, note, context.cancel.is_set)

        # 4. Latents to frames to file, piece by piece.
        writer = VideoWriter(
            output,
            frame_size=render_size,
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

            # 5. What the file says of itself; the time to finish it is only known to the result.
            timings = Timings(
                load_s=loaded - began,
                encode_s=denoised.encode_s,
                denoise_s=denoised.denoise_s,
                decode_s=decoded - decode_began,
                total_s=decoded - began,
            )
            provenance = self._provenance(model, request, render_size, timings, digest.hexdigest(), notes)
            context.on_progress(Progress(stage="write"))
            writer.finish(provenance.model_dump_json())
        ended = time.monotonic()
        return GenerationResult(
            path=output.resolve(),
            backend=self.name,
            model=self.config.name,
            seed=request.seed,
            request=request,
            video=writer.info,
            timings=timings.model_copy(update={"write_s": ended - decoded, "total_s": ended - began}),
            notes=notes,
            provenance=provenance.model_dump(mode="json"),
        )

    def close(self) -> None:
        """Let go of the model and of the device memory it held."""
        self._loaded = None
        from ..pipeline.memory import free_device

        free_device()

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

    def _provenance(
        self,
        model: LoadedModel,
        request: GenerationRequest,
        render_size: tuple[int, int],
        timings: Timings,
        frames_sha256: str,
        notes: list[str],
    ) -> Provenance:
        from ..pipeline.memory import device_name

        return statement(
            backend=self.name,
            request=request,
            model=ModelIdentity(name=self.config.name, config=self.config, weights=weights_identity(model.folder)),
            profile=model.profile.name,
            device=device_name(model.profile),
            render_size=render_size,
            timings=timings,
            frames_sha256=frames_sha256,
            notes=notes,
        )

    def _notes(self, request: GenerationRequest, render_size: tuple[int, int]) -> list[str]:
        notes = [] if self.config.notice is None else [self.config.notice]
        if render_size != (request.width, request.height):
            factor = min(request.width / render_size[0], request.height / render_size[1])
            notes.append(
                f"{self.config.name} renders at {render_size[0]}x{render_size[1]}; the encoder scales up about "
                f"{factor:.1f} times to {request.width}x{request.height}"
            )
        return notes


def _default_output(model: str, seed: int | None) -> Path:
    return Path(f"{Path(model).name}-{datetime.now():%Y%m%d-%H%M%S}-{seed}.mp4")
