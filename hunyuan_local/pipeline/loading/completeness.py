"""Checks that a checkpoint belongs to this pipeline, and that its components have all their weights and no others.

The libraries fill missing weights with random values and ignore unknown ones. Both would give noise, or another
model's videos, without an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from accelerate import init_empty_weights
from safetensors import safe_open

from ...config import ModelConfig
from ...errors import ModelLoadError
from ...weights.files import MODEL_INDEX, PIPELINE_CLASSES, SUPPORTED, weight_files
from ..families.base import Family
from ..families.registry import family_of

_REMEDY = "use a HunyuanVideo checkpoint in diffusers' layout"


def check_classes(config: ModelConfig, folder: Path) -> Family:
    """Return the architecture of a checkpoint; reject one of another pipeline or with other components.

    Args:
        config: for error messages.
        folder: the checkpoint's folder.

    Raises:
        ModelLoadError: names the component and its class.
    """
    start = f"model={config.model_id!r}"
    index = _json(config, folder / MODEL_INDEX)
    transformer = _json(config, folder / "transformer" / "config.json")
    family = family_of(transformer)
    if family is None:
        raise ModelLoadError(
            f"{start}: its transformer has image_condition_type={transformer['image_condition_type']!r}, which is "
            f"unknown; {_REMEDY}"
        )
    wanted = family.pipeline.__name__
    if (name := index.get("_class_name", wanted)) not in PIPELINE_CLASSES:
        raise ModelLoadError(f"{start}: is a {name}; only {SUPPORTED} is supported; {_REMEDY}")
    if name != wanted:
        raise ModelLoadError(
            f"{start}: is a {name}, but its transformer has image_condition_type="
            f"{transformer.get('image_condition_type')!r}, which is that of a {wanted}; {_REMEDY}"
        )
    for component, cls in family.classes.items():
        found = (index.get(component) or [None, "nothing"])[1]
        own = _json(config, folder / component / "config.json").get("_class_name", found)
        for name in (found, own):
            if name != cls.__name__:
                raise ModelLoadError(f"{start}: its {component} is {name}; only {cls.__name__} is supported; {_REMEDY}")
    channels = _json(config, folder / "vae" / "config.json").get("latent_channels", 16)
    for field, count in {"in_channels": family.in_channels(channels), "out_channels": channels}.items():
        if transformer.get(field, count) != count:
            raise ModelLoadError(
                f"{start}: its transformer has {field}={transformer[field]}; {count} fits its vae with "
                f"latent_channels={channels}; it is another architecture; {_REMEDY}"
            )
    return family


def check_weights(config: ModelConfig, folder: Path, component: str, cls: Any) -> None:
    """Reject a diffusers component whose files lack weights or have weights that its config does not describe.

    Reads only names and shapes. A checkpoint that was saved quantized has other tensors; it is left to diffusers.

    Args:
        config: for error messages.
        folder: the checkpoint's folder.
        component: the component's name and subfolder.
        cls: its class.

    Raises:
        ModelLoadError: names the first weight that is missing, has another shape, or is not part of this model.
    """
    settings = cls.load_config(folder / component, local_files_only=True)
    if "quantization_config" in settings:
        return
    with init_empty_weights():
        model = cls.from_config(settings)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = dict(_shapes(folder / component))
    start = f"model={config.model_id!r}: its {component}"
    if missing := sorted(expected.keys() - found.keys()):
        raise missing_weights(config, component, missing)
    if unknown := sorted(found.keys() - expected.keys()):
        raise ModelLoadError(
            f"{start} has {len(unknown)} weights that its config.json does not describe, such as {unknown[0]}; the "
            f"weights are for another model: {_REMEDY}"
        )
    for name, shape in expected.items():
        if found[name] != shape:
            raise ModelLoadError(
                f"{start} has {name} with the shape {list(found[name])}; its config.json needs {list(shape)}; the "
                f"weights are for another model: {_REMEDY}"
            )


def missing_weights(config: ModelConfig, component: str, names: Iterable[str]) -> ModelLoadError:
    """The error for weights that a component's files lack."""
    first, *others = sorted(names)
    return ModelLoadError(
        f"model={config.model_id!r}: its {component} lacks {len(others) + 1} weights, such as {first}, which would be "
        f"filled with random values; download the checkpoint again, or {_REMEDY}"
    )


def _shapes(folder: Path) -> Iterable[tuple[str, tuple[int, ...]]]:
    for file in weight_files(folder):
        with safe_open(file, "pt") as opened:
            for key in opened.keys():  # noqa: SIM118 - not a dict
                yield key, tuple(opened.get_slice(key).get_shape())


def _json(config: ModelConfig, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelLoadError(
            f"model={config.model_id!r}: {path} cannot be read ({error}); download the checkpoint again"
        ) from error
    if not isinstance(found, dict):
        raise ModelLoadError(f"model={config.model_id!r}: {path} is not a JSON object; download the checkpoint again")
    return found
