"""Reads the architecture of a checkpoint without reading any weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from ..config import ModelConfig, configs_dir
from ..errors import ModelLoadError
from .architecture import Architecture, Autoencoder, Clip, Component, Llama, Transformer

DEFAULT = "hunyuan-video"  # every model of configs/models that is on the Hub has this architecture
_CLASSES: dict[type[Component], tuple[str, str]] = {
    Transformer: ("transformer", "HunyuanVideoTransformer3DModel"),
    Autoencoder: ("vae", "AutoencoderKLHunyuanVideo"),
    Llama: ("text_encoder", "LlamaModel"),
    Clip: ("text_encoder_2", "CLIPTextModel"),
}
COMPONENTS = tuple(name for name, _ in _CLASSES.values())
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
        path = configs_dir() / "architectures" / f"{DEFAULT}.json"
        return _build(_read(path), f"{DEFAULT}, because {model.model_id} is not on this machine")
    return _build({name: _read(folder / name / "config.json") for name in COMPONENTS}, str(folder))


def read_transformer(model: ModelConfig) -> Transformer:
    """Like :func:`read_architecture`, for the transformer alone."""
    from ..weights.source import known_configs

    folder = known_configs(model)
    if folder is None:
        return read_architecture(model).transformer
    return _component(Transformer, _read(folder / "transformer" / "config.json"), str(folder))


def _read(path: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return config
    except (OSError, ValueError) as error:
        raise ModelLoadError(
            f"{path}: cannot be read: {error}; give a folder in diffusers' layout with the whole checkpoint"
        ) from error


def _build(configs: dict[str, Any], source: str) -> Architecture:
    return Architecture(
        transformer=_component(Transformer, configs["transformer"], source),
        vae=_component(Autoencoder, configs["vae"], source),
        text_encoder=_component(Llama, configs["text_encoder"], source),
        text_encoder_2=_component(Clip, configs["text_encoder_2"], source),
        source=source,
    )


def _component(kind: type[C], config: dict[str, Any], source: str) -> C:
    name, wanted = _CLASSES[kind]
    found = config.get("_class_name") or next(iter(config.get("architectures", ())), "unknown")
    # The official checkpoint's text encoder names the class of the whole language model.
    if found != wanted and not (name == "text_encoder" and found.startswith("Llama")):
        raise ModelLoadError(
            f"{source}: {name} is a {found}; only {wanted} is supported; use a HunyuanVideo text-to-video "
            "checkpoint in diffusers' layout"
        )
    try:
        return kind.model_validate(config)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ModelLoadError(f"{source}: {name}/config.json cannot be planned for: {problems}") from error
