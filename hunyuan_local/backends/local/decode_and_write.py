"""From latents to a finished mp4 with its provenance."""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from ...config.tiling import SPATIAL_COMPRESSION, Tiling
from ...errors import ContentBlockedError, GenerationCancelledError
from ...frame_checks import FrameGate
from ...json_text import json_text
from ...provenance import ModelIdentity, Provenance, statement
from ...resolved import ResolvedRequest
from ...schema import GenerationResult, Progress, SafetyVerdict, Timings
from ...video import VideoWriter
from ..base import preview_path
from ..begin import Run
from ..safety_check import Inspection, finish_or_note, flag_note

if TYPE_CHECKING:
    from ...config import RuntimeProfile
    from ...pipeline.denoise import Denoised
    from ...pipeline.model import LoadedModel
    from ...pipeline.preview import Previewer
    from ...planner.tiles import Tiles

# Limit of decoded pieces that wait for the encoder. A piece has 12 frames: 12 * 1280 * 720 * 3 bytes = 33 MB at 720p.
_MOST_PIECES = 16


class PendingVideo:
    """A video with all frames decoded; its file may still be in progress."""

    def __init__(self, result: Future[GenerationResult], encoding: _Encoding):
        self._result, self._encoding = result, encoding

    def result(self) -> GenerationResult:
        """Wait for the file.

        Raises:
            VideoError: the file cannot be written.
            OutputExistsError: another file has taken the name in the meantime.
            ContentBlockedError: the safety check blocked the video.
        """
        try:
            return self._result.result()
        except BaseException:  # including signals: no file may appear afterwards
            self._encoding.abort()
            raise


def finish(run: Run[ResolvedRequest], model: LoadedModel, denoised: Denoised, tiling: Tiling) -> GenerationResult:
    """Decode piece by piece, add the provenance, and publish the file.

    Raises:
        InvalidOutputError: NaN, black, constant or frozen frames.
        GpuMemoryError: a tile does not fit in device memory.
        GenerationCancelledError: cancelled while decoding.
        VideoError: the file cannot be written.
        ContentBlockedError: the safety check blocked the video.
    """
    return decode_to_file(run, model, denoised, tiling).result()


def make_previewer(run: Run[ResolvedRequest], model: LoadedModel) -> Previewer | None:
    """A writer of previews of the unfinished video; None if the model does not support them."""
    from ...pipeline.preview import Previewer

    config, every = model.config, run.context.preview_every
    if config.latent_preview is None:
        run.note(f"no previews: the config of {config.name} has no latent_preview (map from latents to RGB)")
        return None
    hidden = model.family.extra_frames // model.pipe.vae_scale_factor_temporal
    return Previewer(config.latent_preview, preview_path(run.output), every, run.note, hidden)


def fitting_tiles(model: LoadedModel, tiles: Tiles, profile: RuntimeProfile) -> Tiling:
    """The tiles that fit in free memory; if none fit, moves a transformer that was kept on the device away first."""
    from ...pipeline.model import decoding_bytes

    tiling, placement = tiles.choose(profile, free_bytes := decoding_bytes(model)), model.placement
    if placement.has_evictable and free_bytes is not None and tiles.needed_bytes > free_bytes:
        placement.evict()
        tiling = tiles.choose(profile, decoding_bytes(model))
    return tiling


def decode_to_file(
    run: Run[ResolvedRequest],
    model: LoadedModel,
    denoised: Denoised,
    tiling: Tiling,
    on_done: Callable[[], None] = lambda: None,
) -> PendingVideo:
    """Like :func:`finish`, but return once the last frame is decoded; a thread finishes the file.

    Args:
        on_done: called in that thread when the latents are no longer needed: the file is published or blocked.

    Raises:
        InvalidOutputError, GpuMemoryError, GenerationCancelledError, VideoError: see :func:`finish`. Errors after
            the last frame, including those of the safety check, are raised by :meth:`PendingVideo.result`.
    """
    request, context = run.request, run.context
    writer = VideoWriter(
        run.output,
        frame_size=_frame_size(denoised),
        size=(request.width, request.height),
        fps=request.fps,
        overwrite=context.overwrite,
    )
    encoding = _Encoding(writer)
    try:
        decode_began = time.monotonic()
        gate, inspection = FrameGate(), Inspection(context.safety, request.num_frames)
        for frames in _frames(run, model, denoised, tiling):
            gate.check(frames)
            inspection.add(frames)
            encoding.add(frames)
        gate.finish()
        decoded = time.monotonic()
        # The provenance is inside the file, so it cannot include the time to finish the file; the result does.
        timings = Timings(
            rewrite_s=context.rewrite_s,
            load_s=run.loaded - run.began,
            encode_s=denoised.encode_s,
            denoise_s=denoised.denoise_s,
            denoise_steps=denoised.steps,
            decode_s=decoded - decode_began,
            total_s=context.rewrite_s + decoded - run.began,
        )
        provenance = _provenance(run, model, denoised, timings)
        context.on_progress(Progress(stage="write"))
    except BaseException:
        encoding.abort()
        raise

    def write() -> GenerationResult:
        found = {"safety": _inspected(run, inspection, on_done), "notes": list(run.notes)}
        statement = provenance.model_copy(update=found | {"frames_sha256": encoding.digest.hexdigest()})
        text = json_text(statement)
        writer.finish(text)
        on_done()
        ended = time.monotonic()
        return GenerationResult(
            path=run.output.resolve(),
            backend="local",
            model=statement.model.name,
            seed=request.seed,
            request=request,
            video=writer.info,
            timings=timings.model_copy(
                update={"write_s": ended - decoded, "total_s": context.rewrite_s + ended - run.began}
            ),
            notes=statement.notes,
            safety=statement.safety,
            provenance=json.loads(text),
        )

    return PendingVideo(encoding.close(write), encoding)


def _inspected(run: Run[ResolvedRequest], inspection: Inspection, on_done: Callable[[], None]) -> SafetyVerdict | None:
    """Run the safety check before the file is published; see :func:`..safety_check.finish_or_note`.

    Raises:
        ContentBlockedError: the video is blocked; its preview is deleted too.
    """
    try:
        verdict = finish_or_note(inspection.finish, run.context.safety.mode, run.note)
    except ContentBlockedError:
        on_done()  # the same latents would give the same video
        if run.context.preview_every:
            preview_path(run.output).unlink(missing_ok=True)
        raise
    if verdict is not None and verdict.flagged:
        run.note(flag_note(verdict))
    return verdict


class _Encoding:
    """Feeds the encoder from a separate thread, so that neither decoding nor the next video waits for it."""

    def __init__(self, writer: VideoWriter):
        self.digest = hashlib.sha256()
        self._writer = writer
        self._thread = ThreadPoolExecutor(1, "encoding")
        self._pieces: deque[Future[None]] = deque()

    def add(self, frames: np.ndarray) -> None:
        """Queue uint8 frames [n, height, width, 3] for encoding; blocks while the queue is full.

        Raises:
            VideoError: the encoder failed.
        """
        self._pieces.append(self._thread.submit(self._write, frames))
        while self._pieces[0].done() or len(self._pieces) > _MOST_PIECES:
            self._pieces.popleft().result()
            if not self._pieces:
                break

    def close(self, write: Callable[[], GenerationResult]) -> Future[GenerationResult]:
        """End the queue; the thread calls ``write`` once all frames are encoded."""

        def write_if_all_went_well() -> GenerationResult:
            try:
                for piece in self._pieces:
                    piece.result()
                return write()
            finally:
                self._writer.abort()

        future = self._thread.submit(write_if_all_went_well)
        self._thread.shutdown(wait=False)
        return future

    def abort(self) -> None:
        """Stop encoding; when this returns, the file is gone and cannot reappear."""
        self._writer.abort()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _write(self, frames: np.ndarray) -> None:
        self.digest.update(frames.tobytes())
        self._writer.write(frames)


def _frames(run: Run[ResolvedRequest], model: LoadedModel, denoised: Denoised, tiling: Tiling) -> Iterator[np.ndarray]:
    """Yield decoded pieces; reports progress and checks for cancellation after each."""
    from ...pipeline.decode import decode

    done, context, total = 0, run.context, run.request.num_frames
    context.on_progress(Progress(stage="decode", total=total))
    for frames in decode(model, denoised.latents, tiling):
        if context.cancel.is_set():
            raise GenerationCancelledError(f"cancelled while decoding, at frame {done}; no file was kept")
        yield frames
        done += len(frames)
        context.on_progress(Progress(stage="decode", step=done, total=total))


def _provenance(run: Run[ResolvedRequest], model: LoadedModel, denoised: Denoised, timings: Timings) -> Provenance:
    """The provenance without ``frames_sha256``, which is known only once all frames are encoded."""
    from ...pipeline.memory.device import device_name

    return statement(
        backend="local",
        request=run.request,
        model=ModelIdentity(
            name=model.config.name, config=model.config, weights=model.weights,
            files=model.extra_files,
        ),
        profile=model.profile.name,
        runtime=model.profile,
        device=device_name(model.profile),
        render_size=_frame_size(denoised),
        timings=timings,
        frames_sha256="",
        notes=list(run.notes),
        recoveries=[*run.recoveries, *model.kernel.recoveries],
    )  # fmt: skip


def _frame_size(denoised: Denoised) -> tuple[int, int]:
    """(width, height) of the decoded frames in pixels, before the encoder scales them up."""
    height, width = denoised.latents.shape[-2:]
    return width * SPATIAL_COMPRESSION, height * SPATIAL_COMPRESSION
