"""From latents to a finished file that says how it was made."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import GenerationCancelledError
from ..gate import FrameGate
from ..provenance import ModelIdentity, Provenance, statement, weights_identity
from ..schema import GenerationRequest, GenerationResult, Progress, Timings
from ..video import VideoWriter
from .base import GenerationContext

if TYPE_CHECKING:
    from ..config.tiling import Tiling
    from ..pipeline.loader import LoadedModel
    from ..pipeline.runner import Denoised


@dataclass
class Run:
    """What is known of one video on its way.

    Attributes:
        request: every field a value.
        output: the file to write.
        render_size: (width, height) in pixels at which the model renders.
        context: progress, cancellation and options of the caller.
        began, loaded: seconds of the monotonic clock at the start and once the model was there.
        notes: what the user was told.
        recoveries: what was changed because memory ran out.
    """

    request: GenerationRequest
    output: Path
    render_size: tuple[int, int]
    context: GenerationContext
    began: float
    loaded: float = 0.0
    notes: list[str] = field(default_factory=list)
    recoveries: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Tell the user, once, and keep it for the result."""
        if text not in self.notes:
            self.notes.append(text)
            self.context.on_note(text)


def finish(run: Run, model: LoadedModel, denoised: Denoised, tiling: Tiling) -> GenerationResult:
    """Decode to the file piece by piece, let it say how it was made, and give it its name.

    Raises:
        InvalidOutputError: NaN, black, constant or frozen frames.
        GpuMemoryError: the device's memory does not hold a tile.
        GenerationCancelledError: cancelled while decoding.
        VideoError: the file cannot be written.
    """
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
        for frames in _frames(run, model, denoised, tiling):
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
        provenance = _provenance(run, model, timings, digest.hexdigest())
        context.on_progress(Progress(stage="write"))
        writer.finish(provenance.model_dump_json())
    ended = time.monotonic()
    return GenerationResult(
        path=run.output.resolve(),
        backend="local",
        model=model.config.name,
        seed=request.seed,
        request=request,
        video=writer.info,
        timings=timings.model_copy(update={"write_s": ended - decoded, "total_s": ended - run.began}),
        notes=run.notes,
        provenance=provenance.model_dump(mode="json"),
    )


def _frames(run: Run, model: LoadedModel, denoised: Denoised, tiling: Tiling) -> Iterator[np.ndarray]:
    """Decoded pieces, with progress, and a look at the cancel switch after each."""
    from ..pipeline.decoder import decode

    done, context, total = 0, run.context, run.request.num_frames
    context.on_progress(Progress(stage="decode", total=total))
    for frames in decode(model, denoised.latents, tiling):
        if context.cancel.is_set():
            raise GenerationCancelledError(f"cancelled while decoding, at frame {done}; no file was kept")
        yield frames
        done += len(frames)
        context.on_progress(Progress(stage="decode", step=done, total=total))


def _provenance(run: Run, model: LoadedModel, timings: Timings, frames_sha256: str) -> Provenance:
    from ..pipeline.memory import device_name

    return statement(
        backend="local",
        request=run.request,
        model=ModelIdentity(
            name=model.config.name, config=model.config, weights=weights_identity(model.folder),
            files=model.extra_files,
        ),
        profile=model.profile.name,
        runtime=model.profile,
        device=device_name(model.profile),
        render_size=run.render_size,
        timings=timings,
        frames_sha256=frames_sha256,
        notes=run.notes,
        recoveries=run.recoveries,
    )  # fmt: skip
