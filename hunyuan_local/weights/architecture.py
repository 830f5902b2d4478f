"""Reads from metadata which architecture a file of weights was made for, as the programs that write such files name it.

Matching names and shapes prove nothing: the blocks of FLUX.1 and of the HunyuanVideo variants have the same names and
shapes. Does not depend on file formats.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

OURS = "HunyuanVideo (text to video)"
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
    r"i2v|ti2v|image_?(2|to)_?video|img_?(2|to)_?vid|(?<!\d)1_?5(?!\d)|frame_?pack|avatar|hunyuan_?custom|video_?custom|"
    r"gamecraft|foley|upsampler|refiner|portrait|controlnet|omniweaving|_sr$"
)
_OTHERS = re.compile(
    r"flux|sdxl|sd_?xl|stable_?(diffusion|cascade|video)|(^|_)sd_?v?[123]|(^|_)wan(_|\d|$|video|vace)|ltx|cosmos|mochi|"
    r"cog_?(video|view)|qwen|z_?image|chroma|hi_?dream|lumina|aura_?flow|pixart|kolors|(^|_)sana(_|\d|$)|kandinsky|"
    r"hunyuan_?(dit|image|3d)|open_?sora|step_?video|allegro|illustrious|pony|noob|krea|omnigen|longcat|skyreels_?v[23]|"
    r"frame_?pack|animatediff|latte|easyanimate"
)


def other_architecture(metadata: Mapping[str, object]) -> str | None:
    """The metadata field that names a different architecture, as ``field='value'``; None if there is none.

    Args:
        metadata: fields of a safetensors header, a GGUF file, or training settings.
    """
    for field in _NAMES:
        if (value := _text(metadata.get(field))) and not is_this(value):
            return f"{field}={value!r}"
    for field in _HINTS:
        if (value := _text(metadata.get(field))) and is_known_other(value):
            return f"{field}={value!r}"
    return None


def is_known_other(value: str) -> bool:
    """Whether a name, a path or a repository refers to a known different architecture."""
    name = _normalised(re.split(r"[/\\]", value.rstrip("/\\"))[-1])
    if _THIS.search(name):
        return _VARIANT.search(name) is not None
    return _OTHERS.search(name) is not None


def is_image_to_video(name: str) -> bool:
    """Whether a file or folder name indicates image to video."""
    return re.search(r"(^|_)t?i2v|image_?(2|to)_?video|img_?(2|to)_?vid", _normalised(name)) is not None


def is_this(value: str) -> bool:
    """Whether the value of an architecture field names this architecture."""
    name = _normalised(value.split("/")[0] if value.lower().endswith("/lora") else value)
    return _THIS.search(name) is not None and _VARIANT.search(name) is None


def _text(value: object) -> str | None:
    text = value.strip() if isinstance(value, str) else ""
    return None if _SAYS_NOTHING.fullmatch(text) else text


def _normalised(value: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", value.lower()).strip("_")
