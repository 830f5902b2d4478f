"""Whether a checkpoint is one of this pipeline, and whether its weights are all those of its components.

The libraries fill weights that a file lacks with random numbers, and leave out those that they have no place for; both
would give videos of noise, or of another model, without an error.
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
    """Refuse a checkpoint of another pipeline, of one with other components, or for image to video.

    Args:
        config: for errors.
        folder: the checkpoint's.
        classes: of the components, by name.

    Raises:
        ModelLoadError: names the component and what it is.
    """
    start = f"model={config.model_id!r}"
    index = _json(config, folder / MODEL_INDEX)
    name = index.get("_class_name", PIPELINE_CLASS)
    if name != PIPELINE_CLASS:
        raise ModelLoadError(f"{start}: is a {name}, and only {PIPELINE_CLASS} can be run; {_REMEDY}")
    for component, wanted in classes.items():
        found = (index.get(component) or [None, "nothing"])[1]
        own = _json(config, folder / component / "config.json").get("_class_name", found)
        for name in (found, own):
            if name != wanted.__name__:
                raise ModelLoadError(
                    f"{start}: its {component} is {name}, and only {wanted.__name__} can be run; {_REMEDY}"
                )
    transformer = _json(config, folder / "transformer" / "config.json")
    if (kind := transformer.get("image_condition_type")) is not None:
        raise ModelLoadError(
            f"{start}: its transformer has image_condition_type={kind!r}, of an image-to-video model; {_REMEDY}"
        )
    channels = _json(config, folder / "vae" / "config.json").get("latent_channels")
    for field in ("in_channels", "out_channels"):
        if channels is not None and transformer.get(field, channels) != channels:
            raise ModelLoadError(
                f"{start}: its transformer has {field}={transformer[field]}, and its vae has latent_channels="
                f"{channels}; it is an image-to-video model, or of another kind; {_REMEDY}"
            )


def check_weights(config: ModelConfig, folder: Path, component: str, cls: Any) -> None:
    """Refuse a component of diffusers whose files lack weights, or have others than its configuration describes.

    Reads no numbers. A checkpoint that was saved quantised holds other tensors, and is left to the library.

    Args:
        config: for errors.
        folder: the checkpoint's.
        component: its folder in it.
        cls: its class.

    Raises:
        ModelLoadError: names the first weight that is missing, of another shape, or not of this model.
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
            f"{start} holds {len(unknown)} weights that its config.json has no place for, such as {unknown[0]}; the "
            f"weights are of another model: {_REMEDY}"
        )
    for name, shape in expected.items():
        if found[name] != shape:
            raise ModelLoadError(
                f"{start} has {name} of the shape {list(found[name])} where its config.json needs {list(shape)}; the "
                f"weights are of another model: {_REMEDY}"
            )


def missing_weights(config: ModelConfig, component: str, names: Iterable[str]) -> ModelLoadError:
    """The error for weights that the files of a component lack."""
    first, *others = sorted(names)
    return ModelLoadError(
        f"model={config.model_id!r}: its {component} lacks {len(others) + 1} weights, such as {first}, which would be "
        f"filled with random numbers; fetch the checkpoint again, or {_REMEDY}"
    )


def _shapes(folder: Path) -> Iterable[tuple[str, tuple[int, ...]]]:
    for file in weight_files(folder):
        with safe_open(file, "pt") as opened:
            for key in opened.keys():  # noqa: SIM118 - it is no dict
                yield key, tuple(opened.get_slice(key).get_shape())


def _json(config: ModelConfig, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelLoadError(
            f"model={config.model_id!r}: {path} cannot be read ({error}); fetch the checkpoint again"
        ) from error
    if not isinstance(found, dict):
        raise ModelLoadError(f"model={config.model_id!r}: {path} is not a JSON object; fetch the checkpoint again")
    return found
