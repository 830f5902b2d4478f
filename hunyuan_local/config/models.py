"""What a model config says: which weights, which prompt template, which defaults, under which licence."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from ..errors import ConfigError, InvalidRequestError
from ..schema import SIZE_MULTIPLE, GenerationRequest
from .places import PACKAGE_DIR
from .strict import StrictConfig


class PromptTemplate(StrictConfig):
    """The text around a prompt for the Llama encoder, and how many tokens of it come before.

    ``crop_start`` counts the tokens ahead of the prompt, the begin-of-text token included; their
    hidden states are cut off after encoding.
    """

    template: str
    crop_start: int = Field(gt=0)

    @model_validator(mode="after")
    def _has_one_placeholder(self) -> PromptTemplate:
        if self.template.count("{}") != 1:
            raise ValueError("template must contain {} exactly once")
        return self


class GenerationDefaults(StrictConfig):
    """A value for every request field that a request may leave open; checked like a request's."""

    width: int
    height: int
    num_frames: int
    num_inference_steps: int
    guidance_scale: float
    flow_shift: float
    fps: int

    @model_validator(mode="after")
    def _would_make_a_request(self) -> GenerationDefaults:
        try:
            GenerationRequest(prompt="any", **dict(self))
        except InvalidRequestError as error:
            raise ValueError(str(error)) from error
        return self


class Licence(StrictConfig):
    """The terms of a model's weights, to be accepted once before they are downloaded.

    Attributes:
        name: its title.
        version: what tells it from other texts of that title; an acceptance is of one version.
        url: where it can be read.
        not_licensed_in: territory that it does not cover, as ``the European Union``.
    """

    name: str
    version: str
    url: str
    not_licensed_in: list[str] = Field(default_factory=list)

    @property
    def notice(self) -> str:
        """What a user must be told of it, in one sentence."""
        *rest, last = self.not_licensed_in or [""]
        places = f"{', '.join(rest)} and {last}" if rest else last
        limits = f"; it does not apply in {places}" if places else ""
        return f"the weights are under the {self.name} of {self.version}, {self.url}{limits}"


class LoraConfig(StrictConfig):
    """A LoRA for the transformer: a safetensors file, or ``owner/name/file.safetensors`` on the Hub, and its scale."""

    path: str
    scale: float = Field(default=1.0, ge=-10, le=10)


class LatentPreview(StrictConfig):
    """A linear map from latents, as the denoising leaves them, to colours: ``rgb = latents @ factors + bias``, -1 to 1.

    ``factors`` is one row of three numbers for each latent channel.
    """

    factors: tuple[tuple[float, float, float], ...]
    bias: tuple[float, float, float] = (0.0, 0.0, 0.0)


class ModelConfig(StrictConfig):
    """One checkpoint and what it wants to be asked for.

    Attributes:
        name: what ``--model`` calls it.
        title: one line for people.
        model_id: repository on the Hugging Face Hub, or the path of a folder in diffusers' layout.
        revision: branch, tag or commit of the repository; None is its main branch.
        prompt_template: must match the checkpoint's tokenizer.
        defaults: values for request fields that were not given.
        render_scale: the model renders at this fraction of the requested size and the encoder
            scales up; 1 for every model that can render what is asked.
        min_render_side: the shorter side never falls below this many pixels because of
            ``render_scale``.
        notice: what a user must be told at each use, if anything.
        licence: the terms of the weights; None where nothing has to be accepted.
        transformer_gguf: a GGUF file with the transformer's weights in the place of the checkpoint's own: a
            path, or ``owner/name/file.gguf`` on the Hub.
        lora: what is added to the transformer's weights.
        latent_preview: how to see latents without decoding; None shows no previews.
        mag_ratios: what MagCache foretells from, one number a step, measured on this checkpoint.
    """

    name: str
    title: str
    model_id: str
    revision: str | None = None
    prompt_template: PromptTemplate
    defaults: GenerationDefaults
    render_scale: float = Field(default=1.0, gt=0, le=1)
    min_render_side: int = Field(default=SIZE_MULTIPLE, ge=SIZE_MULTIPLE)
    notice: str | None = None
    licence: Licence | None = None
    transformer_gguf: str | None = None
    lora: tuple[LoraConfig, ...] = ()
    latent_preview: LatentPreview | None = None
    mag_ratios: tuple[Annotated[float, Field(gt=0)], ...] = ()

    @property
    def is_described(self) -> bool:
        """Whether a config file describes the model; of a bare folder or Hub id only the place is known."""
        return self.title != self.model_id

    @property
    def identity(self) -> str:
        """What tells these weights from others: two folders may have the same name."""
        checkpoint = self.model_id if self.revision is None else f"{self.model_id}@{self.revision}"
        added = [self.transformer_gguf] if self.transformer_gguf else []
        return "+".join([checkpoint, *added, *(f"{lora.path}={lora.scale:g}" for lora in self.lora)])

    @property
    def source(self) -> str:
        """Where the weights are loaded from: a folder if there is one, else the Hub repository."""
        return self.model_id if self.folder is None else str(self.folder)

    @property
    def folder(self) -> Path | None:
        """The folder of the weights, in the package or elsewhere; None for a repository of the Hub."""
        places = (PACKAGE_DIR / self.model_id, Path(self.model_id))
        return next((place for place in places if place.is_dir()), None)

    def with_revision(self, revision: str) -> ModelConfig:
        """The same model at another branch, tag or commit of its repository.

        Raises:
            ConfigError: the model is a folder, which has no revisions.
        """
        if self.folder is not None:
            raise ConfigError(
                f"revision={revision!r}: the model {self.name!r} is a folder; only Hub ids have revisions"
            )
        return self.model_copy(update={"revision": revision})

    def render_size(self, width: int, height: int) -> tuple[int, int]:
        """Size in pixels at which the model renders a video of this size; multiples of 16."""
        if self.render_scale == 1.0:
            return width, height
        scale = min(1.0, max(self.render_scale, self.min_render_side / min(width, height)))
        return _to_multiple(width * scale), _to_multiple(height * scale)


def _to_multiple(pixels: float) -> int:
    return max(SIZE_MULTIPLE, math.floor(pixels / SIZE_MULTIPLE + 0.5) * SIZE_MULTIPLE)
