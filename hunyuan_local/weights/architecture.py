"""Reads from metadata which architecture a file of weights was made for, as the programs that write such files name it.

Matching names and shapes prove nothing: the blocks of FLUX.1 and of the HunyuanVideo variants have the same names and
shapes. Does not depend on file formats.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

# Metadata fields that name an architecture, in sd-scripts, musubi-tuner, OneTrainer, ai-toolkit and others.
_NAMES = (
    "modelspec.architecture",
    "ss_base_model_version",
    "architecture",
    "base_model_version",
    "general.architecture",
)
# Metadata fields with a file, repository or module name, which may indicate the architecture.
_HINTS = (
    "ss_network_module", "ss_sd_model_name", "modelspec.implementation", "base_model", "base_model_name_or_path",
    "ss_base_model", "general.name", "general.basename", "model_type", "sd_version",
)  # fmt: skip
_SAYS_NOTHING = re.compile(r"(unknown|none|null|custom|other|lora|n/?a|model|dit|video)?", re.IGNORECASE)
_THIS = re.compile(r"hunyuan_?video|hyvid|hy_?video|fast_?hunyuan|^hunyuan$|^hv$|accvideo|skyreels_?v1")
# Models of the same family with different layers or inputs.
_VARIANT = re.compile(
    r"(?<!\d)1_?5(?!\d)|frame_?pack|avatar|hunyuan_?custom|video_?custom|"
    r"gamecraft|foley|upsampler|refiner|portrait|controlnet|omniweaving|_sr$"
)
_IMAGE_TO_VIDEO = re.compile(r"i2v|image_?(2|to)_?video|img_?(2|to)_?vid")
_TEXT_TO_VIDEO = re.compile(r"(?<!i)t2v|text_?(2|to)_?video|txt_?(2|to)_?vid")
_OTHERS = re.compile(
    r"flux|sdxl|sd_?xl|stable_?(diffusion|cascade|video)|(^|_)sd_?v?[123]|(^|_)wan(_|\d|$|video|vace)|ltx|cosmos|mochi|"
    r"cog_?(video|view)|qwen|z_?image|chroma|hi_?dream|lumina|aura_?flow|pixart|kolors|(^|_)sana(_|\d|$)|kandinsky|"
    r"hunyuan_?(dit|image|3d)|open_?sora|step_?video|allegro|illustrious|pony|noob|krea|omnigen|longcat|skyreels_?v[23]|"
    r"frame_?pack|animatediff|latte|easyanimate"
)
# By channels of the first layer's input, the models that have them.
_CHANNELS = {
    16: "to a text-to-video model, or an image-to-video model with token_replace",
    32: "to an image-to-video model of SkyReels",
    33: "to an image-to-video model with latent_concat",
}


def task(takes_image: bool) -> str:
    """What a model does."""
    return "image to video" if takes_image else "text to video"


def ours(takes_image: bool) -> str:
    """The name of this architecture."""
    return f"HunyuanVideo ({task(takes_image)})"


def owner_of_channels(layer: str, shape: Sequence[int]) -> str:
    """For an error about the shape of a layer's weight or factor: which models have its channels; empty if unknown."""
    if layer != "x_embedder.proj" or len(shape) != 5 or shape[1] not in _CHANNELS:
        return ""
    return f"{shape[1]} channels belong {_CHANNELS[shape[1]]}"


def other_architecture(metadata: Mapping[str, object], takes_image: bool = False) -> str | None:
    """The metadata field that names a different architecture, as ``field='value'``; None if there is none.

    Args:
        metadata: fields of a safetensors header, a GGUF file, or training settings.
        takes_image: whether the model is image to video; a name without either task fits both.
    """
    for field in _NAMES:
        if (value := _text(metadata.get(field))) and not is_this(value, takes_image):
            return f"{field}={value!r}"
    for field in _HINTS:
        if (value := _text(metadata.get(field))) and is_known_other(value, takes_image):
            return f"{field}={value!r}"
    return None


def is_known_other(value: str, takes_image: bool = False) -> bool:
    """Whether a name, a path or a repository refers to a known different architecture."""
    name = _normalised(re.split(r"[/\\]", value.rstrip("/\\"))[-1])
    if _THIS.search(name):
        return _is_variant(name, takes_image)
    return _OTHERS.search(name) is not None


def other_task(name: str, takes_image: bool) -> str | None:
    """What a file or folder name says the model does, if that is not what this model does; None otherwise."""
    name = _normalised(name)
    image = re.search(r"(^|_)t?i2v|image_?(2|to)_?video|img_?(2|to)_?vid", name) is not None
    text = re.search(r"(^|_)t2v|text_?(2|to)_?video|txt_?(2|to)_?vid", name) is not None
    if takes_image:
        return task(False) if text and not image else None
    return task(True) if image else None


def is_this(value: str, takes_image: bool = False) -> bool:
    """Whether the value of an architecture field names this architecture."""
    name = _normalised(value.split("/")[0] if value.lower().endswith("/lora") else value)
    return _THIS.search(name) is not None and not _is_variant(name, takes_image)


def _is_variant(name: str, takes_image: bool) -> bool:
    """Whether a name of this family means a model with other layers, other inputs or the other task."""
    is_image = _IMAGE_TO_VIDEO.search(name) is not None
    other = not is_image and _TEXT_TO_VIDEO.search(name) is not None if takes_image else is_image
    return other or _VARIANT.search(name) is not None


def _text(value: object) -> str | None:
    text = value.strip() if isinstance(value, str) else ""
    return None if _SAYS_NOTHING.fullmatch(text) else text


def _normalised(value: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", value.lower()).strip("_")
