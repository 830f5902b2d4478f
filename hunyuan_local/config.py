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
from platformdirs import user_state_path
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


class Licence(_Config):
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
    not_licensed_in: list[str] = []

    @property
    def notice(self) -> str:
        """What a user must be told of it, in one sentence."""
        *rest, last = self.not_licensed_in or [""]
        places = f"{', '.join(rest)} and {last}" if rest else last
        limits = f"; it does not apply in {places}" if places else ""
        return f"the weights are under the {self.name} of {self.version}, {self.url}{limits}"


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
        licence: the terms of the weights; None where nothing has to be accepted.
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

    @property
    def notices(self) -> list[str]:
        """What a user must be told at each use: of the licence, then of the model."""
        return [text for text in (self.licence and self.licence.notice, self.notice) if text]

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


class _StepCache(_Config):
    """Which steps of a run may be skipped: from the share ``start`` of all steps up to the share ``end``."""

    start: float = Field(default=0.2, ge=0, le=1)
    end: float = Field(default=1.0, ge=0, le=1)

    @model_validator(mode="after")
    def _leaves_steps(self) -> _StepCache:
        if self.start >= self.end:
            raise ValueError(f"start={self.start} must be below end={self.end}; leave both out, or use cache: null")
        return self


class FirstBlockCache(_StepCache):
    """Skip a step where the first block's residual differs by less than ``threshold`` from the last full step's."""

    kind: Literal["first-block"]
    threshold: float = Field(default=0.05, gt=0, lt=1)


class TaylorSeerCache(_StepCache):
    """Make one step of every ``interval`` in full; a Taylor series of this ``order`` gives the others' output."""

    kind: Literal["taylorseer"]
    interval: int = Field(default=3, ge=2)
    order: int = Field(default=1, ge=0, le=3)


class MagCache(_StepCache):
    """Skip while the error that ``mag_ratios`` foretell adds up to less than ``threshold``, ``max_skips`` at most.

    ``mag_ratios`` are one number a step, measured on the checkpoint: how the blocks' residual grows.
    """

    kind: Literal["magcache"]
    threshold: float = Field(default=0.06, gt=0, lt=1)
    max_skips: int = Field(default=3, ge=1)
    mag_ratios: tuple[Annotated[float, Field(gt=0)], ...] = ()

    @model_validator(mode="after")
    def _is_calibrated(self) -> MagCache:
        if len(self.mag_ratios) < 2:
            raise ValueError(
                "mag_ratios: magcache needs the ratios of this very checkpoint, one a step; measure them with "
                "benchmarks/step_caches.py --calibrate, or use kind: first-block, which needs none"
            )
        return self


CacheConfig = Annotated[FirstBlockCache | TaylorSeerCache | MagCache, Field(discriminator="kind")]


class RuntimeProfile(_Config):
    """How a model runs on a kind of machine.

    Attributes:
        name: what ``--profile`` calls it.
        device: ``cpu`` or ``cuda``.
        dtypes: precision a component.
        offload: ``none`` keeps all components on the device; ``model`` moves one component there at
            a time; ``sequential`` moves one layer at a time: least memory, slowest.
        vae_tiling: decode in spatial tiles, which needs less memory.
        attention_backend: the kernel of the transformer's attention; ``auto`` is the fastest exact one
            that works on the device.
        compile: compile the transformer's blocks: minutes at the first step, then faster steps.
        cache: skip steps that change little: faster, not exact.
        min_gpu_memory_gib: GPU memory in GiB that the profile is meant for.
    """

    name: str
    device: Literal["cpu", "cuda"]
    dtypes: ComponentDtypes
    offload: Offload = "none"
    vae_tiling: bool = False
    attention_backend: str = "auto"
    compile: bool = False
    cache: CacheConfig | None = None
    min_gpu_memory_gib: Annotated[float, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _can_compile(self) -> RuntimeProfile:
        if self.compile and self.offload == "sequential":
            raise ValueError(
                "compile=True does not go with offload='sequential', which moves single layers; "
                "use offload: none or model, or compile: false"
            )
        if self.compile and isinstance(self.cache, MagCache):
            raise ValueError(
                "compile=True does not go with cache.kind='magcache', which runs the blocks uncompiled; "
                "use kind: first-block or taylorseer, or compile: false"
            )
        return self


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


def state_dir() -> Path:
    """The folder of what this user's commands remember: ``HUNYUAN_LOCAL_STATE_DIR``, or the system's convention."""
    root = os.environ.get("HUNYUAN_LOCAL_STATE_DIR")
    return Path(root) if root else user_state_path("hunyuan-local")


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
