"""Parses the keys of a LoRA file: the layer, and the part of its update.

The key suffixes are those of kohya's sd-scripts and musubi-tuner, LyCORIS, peft, diffusers, ComfyUI and OneTrainer.
Does not depend on tensors.
"""

from __future__ import annotations

import re
from collections.abc import Collection

_ADAPTER = r"(?:\.(?!weight$|bias$|(?:weight|bias)\.)(?P<adapter>[^.]+))?"
_A, _B = r"(?:lora_A|lora_down|lora\.down)", r"(?:lora_B|lora_up|lora\.up)"
# Suffix of a key after the layer name, by the kind of tensor.
_KINDS = {
    "down": rf"{_A}{_ADAPTER}(?:\.weight)?",
    "up": rf"{_B}{_ADAPTER}(?:\.weight)?",
    "mid": rf"lora_mid{_ADAPTER}(?:\.weight)?",
    "up_bias": rf"{_B}{_ADAPTER}\.bias",
    "alpha": "alpha",
    "diff": "diff|w_norm",
    "diff_bias": "diff_b|b_norm",
    **{name: rf"{name}{_ADAPTER}" for name in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")},
    **{f"lokr_{name}": rf"lokr_{name}{_ADAPTER}" for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b")},
}
# Descriptions of unsupported kinds, by suffix.
_TITLES = {
    r"dora_scale|lora_magnitude_vector.*": "a DoRA",
    r"b?oft_.*|rescale": "an OFT or BOFT",
    r"(hada|lokr)_t[12].*": "a LoHa or LoKr with a Tucker core",
    r"glora_.*|[ab][12](\.weight)?": "a GLoRA",
    r"lora_E.*|lora_ranknum.*": "an AdaLoRA",
    r"vera_.*": "a VeRA",
    r"ia3_.*|on_input": "an IA3",
    r"lora_embedding_.*": "a LoRA of an embedding",
    r"lora_[A-Za-z]+.*\.bias": "a bias inside a LoRA",
    r"set_weight|reshape_weight": "a replaced weight",
    r"weight|bias|scale|weight\..*|(scale_|input_|output_)?(weight_)?scale.*": "a weight of a whole checkpoint",
}
# Prefixes that trainers use for the transformer.
_TRANSFORMER = (
    "transformer.", "unet.", "model.diffusion_model.", "diffusion_model.", "lora_unet_", "lora_transformer_",
)  # fmt: skip
# Names that module wrappers add before and inside the names of a model.
_WRAPPERS = ("base_model.model.", "base_model.", "module.", "lycoris_")
_WRAPPERS_INSIDE = re.compile(r"(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# Prefix of the keys of Tencent's trainer for HunyuanVideo-I2V.
_IMAGE_TO_VIDEO = re.compile(r"^hunyuan_?video_i2v_lora_", re.IGNORECASE)
_TEXT_ENCODER = re.compile(
    r"(base_model\.model\.)?(lora_te\d*_|lora_(clip|llama|llm|t5)|text_encoders?[._\d]|te\d?\.|clip_|t5|text_model\.|"
    r"llama|language_model\.|cond_stage_model\.|conditioner\.|model\.layers\.)"
)
_FIRST_PARTS = re.compile(
    r"(transformer_blocks|single_transformer_blocks|context_embedder|x_embedder|time_text_embed|norm_out|proj_out|"
    r"double_blocks|single_blocks|img_in|txt_in|time_in|vector_in|guidance_in|final_layer)([._]|$)"
)


def find_layer(key: str, known: Collection[str]) -> tuple[str, str] | None:
    """Split a key into the layer, as spelled in the file, and its suffix; None if no layer in ``known`` matches."""
    name = _unwrapped(key)[0]
    dots = [match.start() for match in re.finditer(r"\.", name)]
    found = next((dot for dot in reversed(dots) if name[:dot] in known), None)
    return None if found is None else (name[:found], name[found + 1 :])


def kind_of(ending: str) -> tuple[str, str | None] | None:
    """The kind of tensor and the adapter name, if any, for a key suffix; None for an unsupported suffix."""
    for kind, pattern in _KINDS.items():
        if (match := re.fullmatch(pattern, ending)) is not None:
            return kind, match.groupdict().get("adapter")
    return None


def why_not_added(ending: str) -> str:
    """Why a key suffix is not supported, and what to use instead."""
    title = _title_of(ending) or f"'{ending}'"
    return f"is of an unsupported kind: {title}; use a plain LoRA, a LoCon, LoHa or LoKr, or a full difference (.diff)"


def why_never_added(key: str) -> str | None:
    """Like :func:`why_not_added`, for a whole key; None if the key may be supported for some layer.

    Needs no list of layers: a transformer key is unsupported if none of its possible suffixes is of a known kind.
    """
    ends = [key[match.end() :] for match in re.finditer(r"\.", key)]
    if not names_transformer(key) or not ends or any(kind_of(end) for end in ends):
        return None
    return why_not_added(next((end for end in ends if _title_of(end)), ends[-1]))


def _title_of(ending: str) -> str | None:
    return next((title for pattern, title in _TITLES.items() if re.fullmatch(pattern, ending)), None)


def names_transformer(key: str) -> bool:
    """Whether a key refers to a transformer like this one, even if it matches none of its layers."""
    if _TEXT_ENCODER.match(key):
        return False
    name, is_named = _unwrapped(key)
    return is_named or _FIRST_PARTS.match(name) is not None


def is_image_to_video(key: str) -> bool:
    """Whether a key was written by Tencent's trainer for HunyuanVideo-I2V."""
    return _IMAGE_TO_VIDEO.match(key) is not None


def _unwrapped(key: str) -> tuple[str, bool]:
    """The key without the prefixes before the layer, and whether one of them names the transformer."""
    name, is_named = _WRAPPERS_INSIDE.sub("", key), is_image_to_video(key)
    name = _IMAGE_TO_VIDEO.sub("", name)
    while prefix := next((prefix for prefix in (*_WRAPPERS, *_TRANSFORMER) if name.startswith(prefix)), None):
        is_named |= prefix in _TRANSFORMER
        name = name.removeprefix(prefix)
    return name, is_named
