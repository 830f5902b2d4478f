"""Checks that a checkpoint belongs to this pipeline, and that its components have all their weights and no others.

The libraries fill missing weights with random values and ignore unknown ones. Both would give noise, or another
model's videos, without an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from accelerate import init_empty_weights
from safetensors import safe_open

from ...config import ModelConfig
from ...errors import ModelLoadError
from ...weights.files import MODEL_INDEX, PIPELINE_CLASS, weight_files

_REMEDY = "use a HunyuanVideo text-to-video checkpoint in diffusers' layout"


def check_classes(config: ModelConfig, folder: Path, classes: Mapping[str, type]) -> None:
    """Reject a checkpoint of another pipeline, with other components, or for image to video.

    Args:
        config: for error messages.
        folder: the checkpoint's folder.
        classes: the expected classes of the components, by name.

    Raises:
        ModelLoadError: names the component and its class.
    """
    start = f"model={config.model_id!r}"
    index = _json(config, folder / MODEL_INDEX)
    name = index.get("_class_name", PIPELINE_CLASS)
    if name != PIPELINE_CLASS:
        raise ModelLoadError(f"{start}: is a {name}; only {PIPELINE_CLASS} is supported; {_REMEDY}")
    for component, wanted in classes.items():
        found = (index.get(component) or [None, "nothing"])[1]
        own = _json(config, folder / component / "config.json").get("_class_name", found)
        for name in (found, own):
            if name != wanted.__name__:
                raise ModelLoadError(
                    f"{start}: its {component} is {name}; only {wanted.__name__} is supported; {_REMEDY}"
                )
    transformer = _json(config, folder / "transformer" / "config.json")
    if (kind := transformer.get("image_condition_type")) is not None:
        raise ModelLoadError(
            f"{start}: its transformer has image_condition_type={kind!r}, so it is an image-to-video model; {_REMEDY}"
        )
    channels = _json(config, folder / "vae" / "config.json").get("latent_channels")
    for field in ("in_channels", "out_channels"):
        if channels is not None and transformer.get(field, channels) != channels:
            raise ModelLoadError(
                f"{start}: its transformer has {field}={transformer[field]}, but its vae has latent_channels="
                f"{channels}; it is an image-to-video model or another architecture; {_REMEDY}"
            )


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
