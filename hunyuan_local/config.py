"""Models and runtime profiles as data: reading, checking and finding the YAML files of ``configs/``.

A model config says which weights, which prompt template and which defaults; a runtime profile says
where and in which precision they run. Knows nothing about torch and touches no weights.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import ConfigError, InvalidRequestError
from .schema import SIZE_MULTIPLE, GenerationRequest

PACKAGE_DIR = Path(__file__).resolve().parent
Dtype = Literal["float32", "bfloat16", "float16"]
Offload = Literal["none", "model", "sequential"]


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PromptTemplate(_Config):
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


class GenerationDefaults(_Config):
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


class ModelConfig(_Config):
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

    @property
    def identity(self) -> str:
        """What tells these weights from others: two folders may have the same name."""
        return self.model_id if self.revision is None else f"{self.model_id}@{self.revision}"

    @property
    def source(self) -> str:
        """Where the weights are loaded from: a folder if there is one, else the Hub repository."""
        shipped = PACKAGE_DIR / self.model_id
        return str(shipped) if shipped.is_dir() else self.model_id

    def with_revision(self, revision: str) -> ModelConfig:
        """The same model at another branch, tag or commit of its repository.

        Raises:
            ConfigError: the model is a folder, which has no revisions.
        """
        if Path(self.source).is_dir():
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


class ComponentDtypes(_Config):
    """Precision a component; the transformer is never float16, which gives black videos."""

    transformer: Literal["float32", "bfloat16"]
    vae: Dtype
    text_encoder: Dtype
    text_encoder_2: Dtype


class RuntimeProfile(_Config):
    """How a model runs on a kind of machine.

    Attributes:
        name: what ``--profile`` calls it.
        device: ``cpu`` or ``cuda``.
        dtypes: precision a component.
        offload: ``none`` keeps all components on the device; ``model`` moves one component there at
            a time; ``sequential`` moves one layer at a time: least memory, slowest.
        vae_tiling: decode in spatial tiles, which needs less memory.
        min_gpu_memory_gib: GPU memory in GiB that the profile is meant for.
    """

    name: str
    device: Literal["cpu", "cuda"]
    dtypes: ComponentDtypes
    offload: Offload = "none"
    vae_tiling: bool = False
    min_gpu_memory_gib: Annotated[float, Field(ge=0)] = 0


C = TypeVar("C", ModelConfig, RuntimeProfile)


def load_model_config(name: str) -> ModelConfig:
    """The config called ``name``; or, for a folder or a Hub id, the 13 B preset with those weights.

    Args:
        name: a name in ``configs/models``, a path to a config file, a folder in diffusers' layout,
            or a Hub id such as ``someone/HunyuanVideo-finetune``.

    Raises:
        ConfigError: nothing of that name; lists the names that exist.
    """
    known = model_names()
    if name in known:
        return _read(_configs_dir() / "models" / f"{name}.yaml", ModelConfig)
    path = Path(name).expanduser()
    if path.suffix in {".yaml", ".yml"} and path.is_file():
        return _read(path, ModelConfig)
    preset = _read(_configs_dir() / "models" / "hunyuan-video.yaml", ModelConfig)
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise ConfigError(
                f"model={name!r}: the folder holds no model_index.json; give a folder in diffusers' layout, "
                "such as one made by save_pretrained"
            )
        resolved = str(path.resolve())
        return preset.model_copy(update={"name": path.name, "title": resolved, "model_id": resolved, "revision": None})
    if _looks_like_hub_id(name):
        return preset.model_copy(update={"name": name, "title": name, "model_id": name, "revision": None})
    raise ConfigError(
        f"model={name!r}: not known, and no such folder; use {', '.join(known)}, a folder in diffusers' layout, "
        "or a Hub id (owner/name)"
    )


def load_profile(name: str) -> RuntimeProfile:
    """The profile called ``name`` in ``configs/profiles``.

    Raises:
        ConfigError: nothing of that name; lists the names that exist.
    """
    known = profile_names()
    if name not in known:
        raise ConfigError(f"profile={name!r}: not known; use one of {', '.join(known)}")
    return _read(_configs_dir() / "profiles" / f"{name}.yaml", RuntimeProfile)


def model_names() -> list[str]:
    """Names in ``configs/models``, sorted."""
    return sorted(path.stem for path in (_configs_dir() / "models").glob("*.yaml"))


def profile_names() -> list[str]:
    """Names in ``configs/profiles``, sorted."""
    return sorted(path.stem for path in (_configs_dir() / "profiles").glob("*.yaml"))


def is_offline() -> bool:
    """True if the environment forbids downloads (``HF_HUB_OFFLINE``, ``TRANSFORMERS_OFFLINE``)."""
    return any(
        os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"}
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def _configs_dir() -> Path:
    """Inside the installed package, or beside it in a checkout."""
    inside = PACKAGE_DIR / "configs"
    return inside if inside.is_dir() else PACKAGE_DIR.parent / "configs"


def _read(path: Path, config_class: type[C]) -> C:
    try:
        return config_class.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{path}: {problems}") from error


def _to_multiple(pixels: float) -> int:
    return max(SIZE_MULTIPLE, math.floor(pixels / SIZE_MULTIPLE + 0.5) * SIZE_MULTIPLE)


def _looks_like_hub_id(name: str) -> bool:
    owner, _, repository = name.partition("/")
    return bool(owner and repository) and "/" not in repository and not name.startswith((".", "~", "/"))
