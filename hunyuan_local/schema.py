"""Data types shared by all layers: request, result, progress, timings and job state.

One request class is used from the command line to the GPU. It is validated once, on construction, so code that
receives one need not check it again. This module knows nothing about models, devices or wire formats.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from .errors import FieldProblem, InvalidRequestError
from .field_checks import Limits, check_grid, check_range, field_problems

# The autoencoder compresses 8x8 pixels into one latent, the transformer groups 2x2 latents into one token: 8 * 2 = 16.
# In time, the first frame is one latent and each further latent covers 4 frames: 4k+1 frames.
SIZE_MULTIPLE = 16
TEMPORAL_COMPRESSION = 4
MAX_SIDE = 16384  # limit of the H.264 encoder
MAX_FRAMES = 4097  # nearly three minutes at 24 fps, far longer than any checkpoint was trained for
MAX_SEED = 2**64 - 1
# Browsers, Node, jq and others parse JSON numbers as doubles, which round larger integers.
MAX_EXACT_SEED = 2**53 - 1
_SIZE = re.compile(r"([0-9]{1,9})[*x]([0-9]{1,9})")

RewriteMode = Literal["off", "normal", "master"]


class GenerationRequest(BaseModel):
    """A request for one video. Frozen; unknown keys are refused.

    A field that is None takes the target's default: the model's preset for the local backend, the service's default
    otherwise. The result always contains the value that was used.

    Raises:
        InvalidRequestError: names each refused field, its value, the rule and the nearest allowed value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    prompt: Annotated[str, Field(description="What the video shows.")]
    negative_prompt: Annotated[
        str | None, Field(description="What the video should not show; requires true_cfg_scale above 1.")
    ] = None
    width: Annotated[
        int | None, Limits(SIZE_MULTIPLE, MAX_SIDE), Field(description="Width in pixels, a multiple of 16.")
    ] = None
    height: Annotated[
        int | None, Limits(SIZE_MULTIPLE, MAX_SIDE), Field(description="Height in pixels, a multiple of 16.")
    ] = None
    num_frames: Annotated[
        int | None, Limits(1, MAX_FRAMES), Field(description="Length in frames, 4k+1, such as 17, 85 or 129.")
    ] = None
    num_inference_steps: Annotated[int | None, Limits(1, 100), Field(description="Denoising steps.")] = None
    seed: Annotated[
        int | None, Limits(0, MAX_SEED), Field(description="Seed; by default chosen at random and reported.")
    ] = None
    guidance_scale: Annotated[float | None, Limits(0.0, 100.0), Field(description="Embedded guidance scale.")] = None
    true_cfg_scale: Annotated[
        float,
        Limits(1.0, 100.0),
        Field(description="True classifier-free guidance scale; 1 turns it off, above 1 doubles the time."),
    ] = 1.0
    flow_shift: Annotated[
        float | None,
        Limits(0.0, 100.0, above_low=True),
        Field(description="Shift of the flow-matching schedule."),
    ] = None
    fps: Annotated[int | None, Limits(1, 240), Field(description="Frames per second of the file.")] = None
    rewrite: Annotated[
        RewriteMode | None,
        Field(description="Rewrite the prompt with a language model first: normal clarifies it without changing its "
              "meaning, master adds composition, lighting and camera."),
    ] = None  # fmt: skip
    original_prompt: Annotated[
        str | None, Field(description="The prompt before rewriting; set only in a rewritten request.")
    ] = None

    @field_validator("prompt")
    @classmethod
    def _prompt_has_text(cls, prompt: str) -> str:
        if not prompt.strip():
            raise ValueError("the prompt is empty; describe what the video shows")
        return prompt

    @field_validator("prompt", "negative_prompt", "original_prompt")
    @classmethod
    def _text_has_whole_characters(cls, text: str | None) -> str | None:
        try:
            (text or "").encode()
        except UnicodeEncodeError as error:
            # The job store, the tokenizers and the mp4 comment all need valid UTF-8.
            raise ValueError(
                f"character {error.start + 1} is half of a surrogate pair; give whole characters"
            ) from None
        return text

    @field_validator("width", "height")
    @classmethod
    def _size_is_allowed(cls, side: int | None) -> int | None:
        if side is None:
            return None
        return check_grid(side, SIZE_MULTIPLE, 0, SIZE_MULTIPLE, MAX_SIDE, f"a multiple of {SIZE_MULTIPLE}")

    @field_validator("num_frames")
    @classmethod
    def _num_frames_is_allowed(cls, frames: int | None) -> int | None:
        if frames is None:
            return None
        return check_grid(frames, TEMPORAL_COMPRESSION, 1, 1, MAX_FRAMES, "4k+1 frames")

    @field_validator("seed")
    @classmethod
    def _seed_is_not_minus_one(cls, seed: int | None) -> int | None:
        if seed == -1:  # means a random seed in other tools
            raise ValueError("must be from 0 to 2^64-1; leave it out for a random seed")
        return seed

    @field_validator("flow_shift")
    @classmethod
    def _flow_shift_is_positive(cls, shift: float | None) -> float | None:
        if shift is not None and not shift > 0:
            raise ValueError("must be above 0, up to 100; 7 suits 50 steps, 17 suits fewer than about 20")
        return shift

    @field_validator("num_inference_steps", "seed", "guidance_scale", "true_cfg_scale", "flow_shift", "fps")
    @classmethod
    def _number_is_within_limits(cls, value: float | None, info: ValidationInfo) -> float | None:
        limits = field_limits(info.field_name or "")
        assert limits is not None
        return None if value is None else check_range(value, limits.low, limits.high)

    @model_validator(mode="wrap")
    @classmethod
    def _translate_errors(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            raise InvalidRequestError(field_problems(cls, error)) from error

    @model_validator(mode="after")
    def _original_is_of_a_rewriting(self) -> GenerationRequest:
        if self.original_prompt is not None and self.rewrite not in ("normal", "master"):
            rule = "is set by rewrite='normal' or 'master' and allowed only with them; leave it out"
            raise InvalidRequestError([FieldProblem("original_prompt", self.original_prompt, rule)])
        return self

    @property
    def awaits_rewriting(self) -> bool:
        """Whether rewriting was requested and has not happened yet."""
        return self.rewrite in ("normal", "master") and self.original_prompt is None

    def __eq__(self, other: object) -> bool:
        """Compare all fields; a request equals a :class:`FilledRequest` with the same values."""
        return isinstance(other, GenerationRequest) and self.__dict__ == other.__dict__

    def replace(self, **changes: Any) -> Self:
        """Return a validated copy with changes; a new prompt clears ``original_prompt`` unless that is given too."""
        if "prompt" in changes and changes["prompt"] != self.prompt:
            changes = {"original_prompt": None} | changes
        return type(self)(**(self.model_dump() | changes))

    def with_defaults(self, defaults: dict[str, Any]) -> Self:
        """Return a validated copy in which ``defaults`` fill the fields that are None."""
        given = {name: value for name, value in self.model_dump().items() if value is not None}
        return type(self)(**(defaults | given))


def field_limits(name: str) -> Limits | None:
    """Allowed values of a numeric request field; None for other fields."""
    return next((item for item in GenerationRequest.model_fields[name].metadata if isinstance(item, Limits)), None)


def parse_size(size: object) -> tuple[int, int]:
    """Parse width and height from a string such as ``1280*720`` or ``1280x720``.

    Raises:
        InvalidRequestError: the string has another form.
    """
    match = _SIZE.fullmatch(size) if isinstance(size, str) else None
    if match is None:
        raise InvalidRequestError([FieldProblem("size", size, "must be WIDTH*HEIGHT, such as 1280*720")])
    return int(match[1]), int(match[2])


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


JobStatus = Literal["queued", "running", "succeeded", "failed", "canceled"]
FailureKind = Literal["moderation", "invalid", "execution", "timeout", "canceled"]


class JobView(BaseModel):
    """A job as clients see it, common to all dialects; None if the dialect does not report it.

    Attributes:
        job_id: id at the server or service that runs it.
        status: current status; the outputs exist once it is ``succeeded``.
        request: the submitted request.
        created_at, completed_at: times with a time zone.
        progress_percent: 0 to 100.
        eta_s: estimated seconds until completion.
        outputs: absolute URLs of the finished files; ``output_ttl_s`` is how long they work.
        error, failure: message and kind of a failure.
        inference_s: seconds of computation, without waiting.
        seed: the seed that was used.
        nsfw: verdict of the safety checker for each output; empty without a checker.
        model: name of the model that generates it, such as ``tiny``; empty if unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    job_id: str
    status: JobStatus
    request: GenerationRequest | None = None
    created_at: datetime | None = None
    completed_at: datetime | None = None
    progress_percent: int | None = Field(default=None, ge=0, le=100)
    eta_s: float | None = Field(default=None, ge=0)
    outputs: tuple[str, ...] = ()
    output_ttl_s: int | None = None
    error: str = ""
    failure: FailureKind | None = None
    inference_s: float | None = None
    seed: int | None = None
    nsfw: tuple[bool, ...] = ()
    model: str = ""
