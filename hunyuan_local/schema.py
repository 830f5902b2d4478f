"""What goes in and what comes out: the request, the result, progress, timings, and a job's state.

One request class from the edge to the GPU. It is checked once, when it is made; whoever holds one
may rely on it. Knows nothing about models, devices or wire formats.
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
    field_validator,
    model_serializer,
    model_validator,
)

from .checks import check_grid, check_range, field_problems
from .errors import FieldProblem, InvalidRequestError

# The autoencoder packs 8x8 pixels and the transformer 2x2 latents, hence 16; 4 frames a latent
# after the first, hence 4k+1.
SIZE_MULTIPLE = 16
TEMPORAL_COMPRESSION = 4
MAX_SIDE = 16384  # the H.264 encoder takes no larger picture
MAX_FRAMES = 4097  # nearly three minutes at 24 a second, far more than any checkpoint was trained for
MAX_SEED = 2**64 - 1
# Many programs, such as browsers, Node and jq, hold a number of JSON as a double, which rounds larger whole numbers.
MAX_EXACT_SEED = 2**53 - 1
_SIZE = re.compile(r"([0-9]{1,9})[*x]([0-9]{1,9})")

RewriteMode = Literal["off", "normal", "master"]


class GenerationRequest(BaseModel):
    """One video to be made. Frozen; unknown keys are refused.

    A field that is None is left to the target: the model's preset locally, the service's default
    elsewhere. The result always states the value that was used.

    Raises:
        InvalidRequestError: naming each refused field, its value, the rule and the nearest value
            that is allowed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    prompt: Annotated[str, Field(description="What the video shows.")]
    negative_prompt: Annotated[
        str | None, Field(description="What it should not show; needs true_cfg_scale above 1.")
    ] = None
    width: Annotated[int | None, Field(description="Width of the video in pixels, a multiple of 16.")] = None
    height: Annotated[int | None, Field(description="Height of the video in pixels, a multiple of 16.")] = None
    num_frames: Annotated[int | None, Field(description="Length in frames: 4k+1, such as 17, 85 or 129.")] = None
    num_inference_steps: Annotated[int | None, Field(description="Denoising steps, 1 to 100.")] = None
    seed: Annotated[int | None, Field(description="0 to 2^64-1; drawn at random and reported if not given.")] = None
    guidance_scale: Annotated[float | None, Field(description="Embedded guidance, 0 to 100.")] = None
    true_cfg_scale: Annotated[
        float, Field(description="True classifier-free guidance, 1 to 100; 1 is off, above 1 doubles the time.")
    ] = 1.0
    flow_shift: Annotated[
        float | None, Field(description="Shift of the flow-matching schedule, above 0 up to 100.")
    ] = None
    fps: Annotated[int | None, Field(description="Frames a second of the file, 1 to 240.")] = None
    rewrite: Annotated[
        RewriteMode | None,
        Field(description="Have a language model rewrite the prompt first: normal keeps what is meant and says it "
              "clearly, master adds composition, light and camera, off leaves it."),
    ] = None  # fmt: skip
    original_prompt: Annotated[
        str | None, Field(description="The prompt before it was rewritten; only a rewritten request has it.")
    ] = None

    @field_validator("prompt")
    @classmethod
    def _prompt_has_text(cls, prompt: str) -> str:
        if not prompt.strip():
            raise ValueError("the prompt is empty; say what the video shows")
        return prompt

    @field_validator("prompt", "negative_prompt", "original_prompt")
    @classmethod
    def _text_has_whole_characters(cls, text: str | None) -> str | None:
        try:
            (text or "").encode()
        except UnicodeEncodeError as error:
            # Neither a store, nor a tokenizer, nor a file's comment could hold it.
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

    @field_validator("num_inference_steps")
    @classmethod
    def _steps_are_allowed(cls, steps: int | None) -> int | None:
        return None if steps is None else check_range(steps, 1, 100)

    @field_validator("seed")
    @classmethod
    def _seed_is_allowed(cls, seed: int | None) -> int | None:
        if seed == -1:
            raise ValueError("must be from 0 to 2^64-1; leave it out for a random seed")
        return None if seed is None else check_range(seed, 0, MAX_SEED)

    @field_validator("guidance_scale")
    @classmethod
    def _guidance_is_allowed(cls, scale: float | None) -> float | None:
        return None if scale is None else check_range(scale, 0.0, 100.0)

    @field_validator("true_cfg_scale")
    @classmethod
    def _true_cfg_is_allowed(cls, scale: float) -> float:
        return check_range(scale, 1.0, 100.0)

    @field_validator("flow_shift")
    @classmethod
    def _flow_shift_is_allowed(cls, shift: float | None) -> float | None:
        if shift is not None and not shift > 0:
            raise ValueError("must be above 0, up to 100; 7 suits 50 steps, 17 fewer than about 20")
        return None if shift is None else check_range(shift, 0.0, 100.0)

    @field_validator("fps")
    @classmethod
    def _fps_is_allowed(cls, fps: int | None) -> int | None:
        return None if fps is None else check_range(fps, 1, 240)

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
            rule = "stands only beside rewrite='normal' or 'master', which set it; leave it out"
            raise InvalidRequestError([FieldProblem("original_prompt", self.original_prompt, rule)])
        return self

    @property
    def awaits_rewriting(self) -> bool:
        """Whether the prompt is to be rewritten, and is not yet."""
        return self.rewrite in ("normal", "master") and self.original_prompt is None

    def __eq__(self, other: object) -> bool:
        """Equal in every field; a request stays equal to the same one whose fields are all known to be filled."""
        return isinstance(other, GenerationRequest) and self.__dict__ == other.__dict__

    def replace(self, **changes: Any) -> Self:
        """A checked copy with some fields changed; another prompt has no original, unless that is given too."""
        if "prompt" in changes and changes["prompt"] != self.prompt:
            changes = {"original_prompt": None} | changes
        return type(self)(**(self.model_dump() | changes))

    def with_defaults(self, defaults: dict[str, Any]) -> Self:
        """A checked copy in which ``defaults`` fill the fields that are None, and no others."""
        given = {name: value for name, value in self.model_dump().items() if value is not None}
        return type(self)(**(defaults | given))


def parse_size(size: object) -> tuple[int, int]:
    """Width and height of a text such as 1280*720 or 1280x720.

    Raises:
        InvalidRequestError: it is no such text.
    """
    match = _SIZE.fullmatch(size) if isinstance(size, str) else None
    if match is None:
        raise InvalidRequestError([FieldProblem("size", size, "must be WIDTH*HEIGHT, such as 1280*720")])
    return int(match[1]), int(match[2])


Stage = Literal["rewrite", "load", "encode", "denoise", "decode", "write", "submit", "queue", "run", "download"]


class Progress(BaseModel):
    """One message to a progress callback; ``step`` of ``total`` within a stage, counted from 1.

    ``preview`` is a picture of the video as it stands, where one was asked for and has just been written.
    """

    model_config = ConfigDict(frozen=True)

    stage: Stage
    step: int = 0
    total: int = 0
    seconds_per_step: float | None = None
    seconds_left: float | None = None
    preview: Path | None = None


class Timings(BaseModel):
    """Seconds a stage; a stage that a backend does not have is 0, as is loading a loaded model.

    Writing overlaps decoding: ``write_s`` is what remained to be written after the last frame. The
    last five seconds are a hosted service's: ``run_s`` is its own figure where it gives one, else, like
    ``queue_s``, what was seen from here, to the polling interval. ``poll_s`` is the longest that the finished task can
    have waited to be seen: no service says when a task ended, but the look before found it unfinished, and it ran for
    ``run_s`` after it was last seen waiting. It is set only if the service reports ``run_s``; otherwise it is 0, and
    contained in ``run_s``.
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
    """What a video file holds; ``num_frames`` is counted by decoding."""

    width: int
    height: int
    num_frames: int
    fps: float
    duration_s: float
    codec: str
    pixel_format: str


class SafetyVerdict(BaseModel):
    """What a classifier of pictures says of some frames of a video.

    Attributes:
        flagged: whether any frame reached the threshold.
        score: the highest of a frame, 0 to 1, over the labels that count.
        label: the label with that score.
        frame: the frame with that score, counted from 0.
        threshold: from where a frame counts as flagged.
        frames: how many were looked at.
        model: the classifier, by id or folder.
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
    """A seed as a text, where readers of JSON may round the number; None where they do not."""
    return None if seed is None or seed <= MAX_EXACT_SEED else str(seed)


class SeedTeller(BaseModel):
    """What tells of a video: as JSON it has the seed as ``seed_text`` too, where the number may be read rounded."""

    @property
    def told_seed(self) -> int | None:
        """The seed that the video was, or is to be, made with."""
        raise NotImplementedError

    @model_serializer(mode="wrap")
    def _with_seed_text(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        text = seed_text(self.told_seed)
        return fields if text is None else fields | {"seed_text": text}


class GenerationResult(SeedTeller):
    """One finished video: where it is, what it holds, how it was made, and seconds a stage.

    ``video`` is None where a service gave a video that cannot be decoded here, and ``safety`` where no frame was
    checked.
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
    """What can be said of a job from outside, in every dialect; None is what a dialect left unsaid.

    Attributes:
        job_id: its id at whoever runs it.
        status: where it stands; the outputs are there when it has succeeded.
        request: what was asked for.
        created_at, completed_at: with a time zone.
        progress_percent: 0 to 100.
        eta_s: seconds that it will take from now.
        outputs: absolute URLs of the finished files; ``output_ttl_s`` is how long they work.
        error, failure: why it failed, in words and by kind.
        inference_s: seconds of computation, without the waiting.
        seed: the seed that was used.
        nsfw: a checker's verdict on each output; empty where there is no checker.
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
