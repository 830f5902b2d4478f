"""Finds, reads and validates the YAML files of ``configs/``."""

from __future__ import annotations

import contextlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from ..errors import ConfigError
from .model_files import SUFFIXES, refuse_file
from .models import Licence, ModelConfig
from .places import configs_dir, user_path
from .profiles import CacheConfig, RuntimeProfile
from .rewriting import AnswerPhrases, RewriteTemplate
from .yaml_file import read_yaml

C = TypeVar("C")

# The preset for a checkpoint without a config file: for text to video, or by its transformer's image_condition_type.
_TEXT_TO_VIDEO = "hunyuan-video"
_IMAGE_TO_VIDEO = {"token_replace": "hunyuan-video-i2v", "latent_concat": "hunyuan-video-i2v-33ch"}


def load_model_config(name: str) -> ModelConfig:
    """Load the config ``name``; for a folder or a Hub id, the 13 B preset with those weights.

    For a folder, the preset is that of its architecture. For the Hub id of a preset, it is that preset. For any other
    Hub id it is text to video, until ``hunyuan_local.weights.source.with_own_preset`` reads its configs.

    The licence of a folder or of an unknown repository is not determined here, but in
    ``hunyuan_local.weights.licence.licence_of``.

    Args:
        name: a name in ``configs/models``, a path to a config file, a folder in diffusers format,
            or a Hub id such as ``someone/HunyuanVideo-finetune``.

    Raises:
        ConfigError: there is no such model, and the message lists the known names; or it is a single weights file.
    """
    known = model_names()
    if name in known:
        return _read_preset(name)
    path = user_path("model", name)
    if path.suffix in {".yaml", ".yml"} and path.is_file():
        return _read_model(path)
    if path.is_file():
        refuse_file(name, path)
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise ConfigError(
                f"model={name!r}: the folder has no model_index.json; give a folder in diffusers format, such as one "
                "written by save_pretrained"
            )
        resolved = str(path.resolve())
        return _at_place(_preset_for(path), path.name, resolved, None)
    if _looks_like_hub_id(name):
        same = next((known for known in presets() if known.identity == name), None)  # no added files
        preset = same or _read_preset(_TEXT_TO_VIDEO)
        return _at_place(preset, name, name, None if same is None else same.licence)
    raise ConfigError(
        f"model={name!r}: not known, and no such folder; use {', '.join(known)}, a folder in diffusers format, "
        "or a Hub id (owner/name)"
    )


def for_checkpoint(config: ModelConfig, folder: Path) -> ModelConfig:
    """The model with the preset of its checkpoint's architecture, if only its Hub id is known.

    Args:
        folder: has at least the config of the checkpoint's transformer.
    """
    if config.is_described or config.folder is not None or is_of_preset(config):
        return config
    kept = ("name", "title", "model_id", "revision", "licence", "lora")
    return _preset_for(folder).model_copy(update={name: getattr(config, name) for name in kept})


def is_of_preset(config: ModelConfig) -> bool:
    """Whether a model's repository is that of a preset."""
    return any(preset.model_id == config.model_id for preset in presets())


def load_profile(name: str) -> RuntimeProfile:
    """Load the profile ``name`` from ``configs/profiles``, or a YAML file at that path.

    Its ``cache`` may be a name in ``configs/caches``.

    Raises:
        ConfigError: there is no such profile; lists the known names.
    """
    known = profile_names()
    path = user_path("profile", name)
    if name not in known and not (path.suffix in {".yaml", ".yml"} and path.is_file()):
        raise ConfigError(f"profile={name!r}: not known; use one of {', '.join(known)}, or a YAML file")
    if name in known:
        path = configs_dir() / "profiles" / f"{name}.yaml"
    content = _parse(path)
    if isinstance(content, dict) and isinstance(content.get("cache"), str):
        content["cache"] = load_cache(content["cache"])
    return _check(path, content, TypeAdapter(RuntimeProfile))


def load_cache(name: str) -> CacheConfig:
    """Load the step cache ``name`` from ``configs/caches``.

    Raises:
        ConfigError: there is no such cache; lists the known names.
    """
    known = cache_names()
    if name not in known:
        raise ConfigError(f"cache={name!r}: not known; use one of {', '.join(known)}")
    path = configs_dir() / "caches" / f"{name}.yaml"
    return _check(path, _parse(path), TypeAdapter(CacheConfig))


def load_rewrite_template(mode: str) -> RewriteTemplate:
    """Load the template of a rewriting mode from ``configs/rewrite``.

    Raises:
        ConfigError: the file is missing or damaged.
    """
    path = configs_dir() / "rewrite" / f"{mode}.yaml"
    return _check(path, _parse(path), TypeAdapter(RewriteTemplate))


@lru_cache(maxsize=1)  # the longest config file, needed for every rewriting
def load_answer_phrases() -> AnswerPhrases:
    """Load the phrases that distinguish a prompt from other output of language models.

    Raises:
        ConfigError: the file is missing or damaged.
    """
    path = configs_dir() / "rewrite" / "answers.yaml"
    return _check(path, _parse(path), TypeAdapter(AnswerPhrases))


def model_names() -> list[str]:
    """Names in ``configs/models``, sorted."""
    return sorted(path.stem for path in (configs_dir() / "models").glob("*.yaml"))


def profile_names() -> list[str]:
    """Names in ``configs/profiles``, sorted."""
    return sorted(path.stem for path in (configs_dir() / "profiles").glob("*.yaml"))


def presets() -> list[ModelConfig]:
    """The models of ``configs/models``, sorted by name."""
    return [_read_preset(name) for name in model_names()]


def cache_names() -> list[str]:
    """Names in ``configs/caches``, sorted."""
    return sorted(path.stem for path in (configs_dir() / "caches").glob("*.yaml"))


def _preset_for(folder: Path) -> ModelConfig:
    """The 13 B preset of a checkpoint's architecture, from its transformer's config; loading checks that it can run."""
    name: str | None = _TEXT_TO_VIDEO
    with contextlib.suppress(OSError, ValueError, AttributeError):
        config = json.loads((folder / "transformer" / "config.json").read_text(encoding="utf-8"))
        name = _IMAGE_TO_VIDEO.get(config.get("image_condition_type"))
    return _read_preset(name or _TEXT_TO_VIDEO)


def _at_place(preset: ModelConfig, name: str, place: str, licence: Licence | None) -> ModelConfig:
    """A model known only by its folder or Hub id."""
    update = {"name": name, "title": place, "model_id": place, "revision": None, "licence": licence}
    return preset.model_copy(update=update)


@lru_cache(maxsize=64)  # files of the package; a plan compares its model with all of them
def _read_preset(name: str) -> ModelConfig:
    return _read_model(configs_dir() / "models" / f"{name}.yaml")


def _read_model(path: Path) -> ModelConfig:
    return _check(path, _parse(path), TypeAdapter(ModelConfig))


def _parse(path: Path) -> Any:
    try:
        return read_yaml(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error


def _check(path: Path, content: Any, kind: TypeAdapter[C]) -> C:
    try:
        return kind.validate_python(content)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{path}: {problems}") from error


def _looks_like_hub_id(name: str) -> bool:
    owner, _, repository = name.partition("/")
    return (
        bool(owner and repository)
        and "/" not in repository
        and not name.startswith((".", "~", "/"))
        and not name.lower().endswith(SUFFIXES)
    )
