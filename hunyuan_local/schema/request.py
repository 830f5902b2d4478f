"""The request for one video, from the command line to the GPU.

It is validated once, on construction, so code that receives one need not check it again.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ..errors import FieldProblem, InvalidRequestError
from ..field_checks import Limits, check_grid, check_range, field_problems

# The autoencoder compresses 8x8 pixels into one latent, the transformer groups 2x2 latents into one token: 8 * 2 = 16.
# In time, the first frame is one latent and each further latent covers 4 frames: 4k+1 frames.
SIZE_MULTIPLE = 16
TEMPORAL_COMPRESSION = 4
MAX_SIDE = 16384  # limit of the H.264 encoder
MAX_FRAMES = 4097  # nearly three minutes at 24 fps, far longer than any checkpoint was trained for
MAX_SEED = 2**64 - 1
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
