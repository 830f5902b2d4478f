"""Reads the architecture of a checkpoint without reading any weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..config import ModelConfig, configs_dir
from ..errors import ModelLoadError
from .architecture import Architecture, Autoencoder, Clip, Component, Llama, Transformer

DEFAULT = "hunyuan-video"  # every model of configs/models that is on the Hub has this architecture
COMPONENTS = ("transformer", "vae", "text_encoder", "text_encoder_2")


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


def _read(path: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return config
    except (OSError, ValueError) as error:
        raise ModelLoadError(
            f"{path}: cannot be read: {error}; give a folder in diffusers' layout with the whole checkpoint"
        ) from error


def _build(configs: dict[str, Any], source: str) -> Architecture:
    classes: dict[str, tuple[type[Component], str]] = {
        "transformer": (Transformer, "HunyuanVideoTransformer3DModel"),
        "vae": (Autoencoder, "AutoencoderKLHunyuanVideo"),
        "text_encoder": (Llama, "LlamaModel"),
        "text_encoder_2": (Clip, "CLIPTextModel"),
    }
    parts: dict[str, Any] = {}
    for name, (component, wanted) in classes.items():
        found = configs[name].get("_class_name") or next(iter(configs[name].get("architectures", ())), "unknown")
        # The official checkpoint's text encoder names the class of the whole language model.
        if found != wanted and not (name == "text_encoder" and found.startswith("Llama")):
            raise ModelLoadError(
                f"{source}: {name} is a {found}; only {wanted} is supported; use a HunyuanVideo text-to-video "
                "checkpoint in diffusers' layout"
            )
        try:
            parts[name] = component.model_validate(configs[name])
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise ModelLoadError(f"{source}: {name}/config.json cannot be planned for: {problems}") from error
    return Architecture(**parts, source=source)
