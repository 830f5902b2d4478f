"""Reads the architecture of a checkpoint without reading any weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from ..config import ModelConfig, configs_dir
from ..errors import ModelLoadError
from .architecture import Architecture, Autoencoder, Clip, Component, Llama, Llava, Transformer
from .layers import learn

DEFAULT = "hunyuan-video"  # the architecture of each model of configs/models without a file in configs/architectures
COMPONENTS = ("transformer", "vae", "text_encoder", "text_encoder_2")
C = TypeVar("C", bound=Component)


def read_architecture(model: ModelConfig) -> Architecture:
    """The architecture of a checkpoint, from its folder, the Hub's cache, the Hub, or for known models this package.

    Downloads no weights and guesses nothing.

    Raises:
        ConfigError, ModelLoadError: the model's configuration cannot be found; see
            :func:`hunyuan_local.weights.source.known_configs`.
        ModelLoadError: a ``config.json`` is missing, unreadable or describes another class.
    """
    from ..weights.source import known_configs  # the Hub's client takes a while to import

    folder = known_configs(model)
    if folder is None:
        name = model.name if (configs_dir() / "architectures" / f"{model.name}.json").is_file() else DEFAULT
        return _build(_known(name), f"{name}, because {model.model_id} is not on this machine")
    return _build({name: _read(folder / name / "config.json") for name in COMPONENTS}, str(folder))


def read_transformer(model: ModelConfig) -> Transformer:
    """Like :func:`read_architecture`, for the transformer alone."""
    from ..weights.source import known_configs

    folder = known_configs(model)
    if folder is None:
        return read_architecture(model).transformer
    return _component(Transformer, "transformer", _read(folder / "transformer" / "config.json"), str(folder))


def _known(name: str) -> dict[str, Any]:
    """The configurations of a known architecture; a file may name another one that it changes in some components."""
    configs = _read(configs_dir() / "architectures" / f"{name}.json")
    return (_known(configs.pop("like")) if "like" in configs else {}) | configs


def _read(path: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return config
    except (OSError, ValueError) as error:
        raise ModelLoadError(
            f"{path}: cannot be read: {error}; give a folder in diffusers' layout with the whole checkpoint"
        ) from error


def _build(configs: dict[str, Any], source: str) -> Architecture:
    transformer = _component(Transformer, "transformer", configs["transformer"], source)
    text_encoder: Llama | Llava
    if transformer.image is None:
        text_encoder = _component(Llama, "text_encoder", configs["text_encoder"], source)
    else:
        text_encoder = _component(Llava, "text_encoder", configs["text_encoder"], source)
    vae = _component(Autoencoder, "vae", configs["vae"], source)
    text_encoder_2 = _component(Clip, "text_encoder_2", configs["text_encoder_2"], source)
    learn([component.key for component in (transformer, vae, text_encoder, text_encoder_2)])
    return Architecture(transformer, vae, text_encoder, text_encoder_2, source)


def _component(kind: type[C], name: str, config: dict[str, Any], source: str) -> C:
    wanted = kind.class_name
    found = config.get("_class_name") or next(iter(config.get("architectures", ())), "unknown")
    # The official checkpoint's text encoder names the class of the whole language model.
    if found != wanted and not (kind is Llama and found.startswith("Llama")):
        raise ModelLoadError(
            f"{source}: {name} is a {found}; only {wanted} is supported; use a HunyuanVideo checkpoint in diffusers' "
            "layout"
        )
    try:
        return kind.of(config)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ModelLoadError(f"{source}: {name}/config.json cannot be planned for: {problems}") from error
