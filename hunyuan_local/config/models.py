"""Model configs: weights, prompt template, defaults and licence."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from ..errors import ConfigError, InvalidRequestError
from ..resolved import FilledRequest
from ..schema import SIZE_MULTIPLE, GenerationRequest
from .places import PACKAGE_DIR
from .strict import StrictConfig


class PromptTemplate(StrictConfig):
    """The text around a prompt for the Llama encoder.

    ``crop_start`` is the number of tokens before the prompt, including the begin-of-text token; their hidden states are
    removed after encoding.
    """

    template: str
    crop_start: int = Field(gt=0)

    @model_validator(mode="after")
    def _has_one_placeholder(self) -> PromptTemplate:
        if self.template.count("{}") != 1:
            raise ValueError("template must contain {} exactly once")
        return self


class GenerationDefaults(StrictConfig):
    """Default values for request fields, validated like those of a request."""

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
        name: title of the licence.
        version: version of the licence; the user accepts one version.
        url: address of the text.
        not_licensed_in: territories that the licence excludes, such as ``the European Union``.
    """

    name: str
    version: str
    url: str
    not_licensed_in: list[str] = Field(default_factory=list)

    @property
    def notice(self) -> str:
        """One sentence with what the user must know about the licence."""
        *rest, last = self.not_licensed_in or [""]
        places = f"{', '.join(rest)} and {last}" if rest else last
        limits = f"; it does not apply in {places}" if places else ""
        return f"the weights are under the {self.name} of {self.version}, {self.url}{limits}"


class LoraConfig(StrictConfig):
    """A LoRA for the transformer: a safetensors file, or ``owner/name/file.safetensors`` on the Hub, and its scale."""

    path: str
    scale: float = Field(default=1.0, ge=-10, le=10)


class LatentPreview(StrictConfig):
    """A linear map from latents to colours in -1 to 1: ``rgb = latents @ factors + bias``.

    ``latents`` are [..., channels] as in denoising; ``factors`` is [channels, 3].
    """

    factors: tuple[tuple[float, float, float], ...]
    bias: tuple[float, float, float] = (0.0, 0.0, 0.0)


class ModelConfig(StrictConfig):
    """One checkpoint and its settings.

    Attributes:
        name: value of ``--model``.
        title: one-line description.
        model_id: repository on the Hugging Face Hub, or path of a folder in diffusers format.
        revision: branch, tag or commit of the repository; None is the main branch.
        prompt_template: must match the checkpoint's tokenizer.
        defaults: values for request fields that are None.
        takes_image: whether its videos begin with an image: a request must have one, or must have none.
        image_sizes: the sizes (width, height) it was trained on; with an image, the one whose shape is nearest to the
            image's is the default. Empty: the default size.
        render_scale: the model renders at this fraction of the requested size, and the encoder scales the frames up; 1
            for models that render every size directly.
        min_render_side: lower limit in pixels for the shorter side after ``render_scale``.
        notice: text shown to the user at each use, if any.
        licence: licence of the weights; None if there is nothing to accept.
        transformer_gguf: GGUF file that replaces the checkpoint's transformer weights: a path, or
            ``owner/name/file.gguf`` on the Hub.
        lora: LoRAs added to the transformer.
        latent_preview: map from latents to colours for previews; None disables previews.
        mag_ratios: magnitude ratios for MagCache, one per step, measured on this checkpoint.
    """

    name: str
    title: str
    model_id: str
    revision: str | None = None
    prompt_template: PromptTemplate
    defaults: GenerationDefaults
    takes_image: bool = False
    image_sizes: tuple[tuple[int, int], ...] = ()
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
        """Whether the model has a config file; otherwise only its folder or Hub id is known."""
        return self.title != self.model_id

    @property
    def identity(self) -> str:
        """Identifies the weights by path, revision and added files, since two folders may have the same name."""
        checkpoint = self.model_id if self.revision is None else f"{self.model_id}@{self.revision}"
        added = [self.transformer_gguf] if self.transformer_gguf else []
        return "+".join([checkpoint, *added, *(f"{lora.path}={lora.scale:g}" for lora in self.lora)])

    @property
    def source(self) -> str:
        """Where to load the weights from: the folder if it exists, else the Hub repository."""
        return self.model_id if self.folder is None else str(self.folder)

    @property
    def is_built_in(self) -> bool:
        """Whether the weights are part of the package."""
        return (PACKAGE_DIR / self.model_id).is_dir()

    @property
    def folder(self) -> Path | None:
        """Folder of the weights, inside the package or elsewhere; None for a Hub repository."""
        places = (PACKAGE_DIR / self.model_id, Path(self.model_id))
        return next((place for place in places if place.is_dir()), None)

    def fill(self, request: GenerationRequest) -> FilledRequest:
        """Return the request with this model's defaults in the fields that are None."""
        return FilledRequest.of(request, dict(self.defaults), self.image_sizes)

    def with_revision(self, revision: str) -> ModelConfig:
        """Return the model at another branch, tag or commit of its repository.

        Raises:
            ConfigError: the model is a folder, which has no revisions.
        """
        if self.folder is not None:
            raise ConfigError(
                f"revision={revision!r}: the model {self.name!r} is a folder; only Hub ids have revisions"
            )
        return self.model_copy(update={"revision": revision})

    def render_size(self, width: int, height: int) -> tuple[int, int]:
        """Size in pixels, in multiples of 16, at which the model renders a video of this size."""
        if self.render_scale == 1.0:
            return width, height
        scale = min(1.0, max(self.render_scale, self.min_render_side / min(width, height)))
        return _to_multiple(width * scale), _to_multiple(height * scale)


def _to_multiple(pixels: float) -> int:
    return max(SIZE_MULTIPLE, math.floor(pixels / SIZE_MULTIPLE + 0.5) * SIZE_MULTIPLE)
