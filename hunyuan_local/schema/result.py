"""What a generation reports and returns: progress, seconds per stage, and the finished video."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from .request import GenerationRequest

# Browsers, Node, jq and others parse JSON numbers as doubles, which round larger integers.
MAX_EXACT_SEED = 2**53 - 1

Stage = Literal["rewrite", "load", "encode", "denoise", "decode", "write", "submit", "queue", "run", "download"]


class Progress(BaseModel):
    """One progress report: ``step`` of ``total`` within a stage, counted from 1.

    ``preview`` is the path of a preview image that was just written; None otherwise.
    """

    model_config = ConfigDict(frozen=True)

    stage: Stage
    step: int = 0
    total: int = 0
    seconds_per_step: float | None = None
    seconds_left: float | None = None
    preview: Path | None = None


class Timings(BaseModel):
    """Seconds per stage; 0 for a stage that the backend does not have or that was skipped.

    Writing overlaps decoding: ``write_s`` counts only the time after the last decoded frame. ``submit_s`` to
    ``download_s`` apply to hosted services. ``run_s`` is the service's own value if it reports one. Otherwise, like
    ``queue_s``, it is measured by polling, to the accuracy of the polling interval.

    ``poll_s`` is an upper bound for the time between the end of a task and the poll that noticed it. Services do not
    report when a task ended, but it was unfinished at the previous poll, and it ran for ``run_s`` after the last poll
    that saw it waiting. It is set only if the service reports ``run_s``; otherwise it is 0, and contained in ``run_s``.
    """

    model_config = ConfigDict(frozen=True)

    rewrite_s: float = 0.0
    load_s: float = 0.0
    encode_s: float = 0.0
    denoise_s: float = 0.0
    denoise_steps: int = 0
    decode_s: float = 0.0
    write_s: float = 0.0
    submit_s: float = 0.0
    queue_s: float = 0.0
    run_s: float = 0.0
    poll_s: float = 0.0
    download_s: float = 0.0
    total_s: float = 0.0


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video file; ``num_frames`` is counted by decoding."""

    width: int
    height: int
    num_frames: int
    fps: float
    duration_s: float
    codec: str
    pixel_format: str


class SafetyVerdict(BaseModel):
    """Result of an image classifier on sampled frames of a video.

    Attributes:
        flagged: whether any frame reached the threshold.
        score: highest score of any frame, 0 to 1, over the labels that count.
        label: label with that score.
        frame: frame with that score, counted from 0.
        threshold: score from which a frame is flagged.
        frames: number of frames that were classified.
        model: Hub id or folder of the classifier.
    """

    model_config = ConfigDict(frozen=True)

    flagged: bool
    score: float
    label: str
    frame: int
    threshold: float
    frames: int
    model: str


def seed_text(seed: int | None) -> str | None:
    """Return a seed as a string if JSON readers may round the number; otherwise None."""
    return None if seed is None or seed <= MAX_EXACT_SEED else str(seed)


class SeedTeller(BaseModel):
    """Base of models with a seed: their JSON adds ``seed_text`` for seeds that JSON readers may round."""

    @property
    def told_seed(self) -> int | None:
        """The seed of the video."""
        raise NotImplementedError

    @model_serializer(mode="wrap")
    def _with_seed_text(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        text = seed_text(self.told_seed)
        return fields if text is None else fields | {"seed_text": text}


class GenerationResult(SeedTeller):
    """A finished video: its path, its properties, how it was generated, and seconds per stage.

    ``video`` is None if a service's video cannot be decoded here; ``safety`` is None if no frame was checked.
    """

    model_config = ConfigDict(frozen=True)

    path: Path
    backend: str
    model: str
    seed: int
    request: GenerationRequest
    video: VideoInfo | None
    timings: Timings
    notes: list[str] = []
    safety: SafetyVerdict | None = None
    provenance: dict[str, Any]

    @property
    def told_seed(self) -> int:
        """The seed that was used."""
        return self.seed
