"""What the keys of a LoRA file say: which layer, and which part of its change.

The endings are those of kohya's sd-scripts and musubi-tuner, LyCORIS, peft, diffusers, ComfyUI and OneTrainer.
Knows nothing about tensors.
"""

from __future__ import annotations

import re
from collections.abc import Collection

_ADAPTER = r"(?:\.(?!weight$|bias$|(?:weight|bias)\.)(?P<adapter>[^.]+))?"
_A, _B = r"(?:lora_A|lora_down|lora\.down)", r"(?:lora_B|lora_up|lora\.up)"
# What follows the layer in a key, by what it holds.
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
# What cannot be added, by the same endings, in words.
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
# The transformer, as trainers call it.
_TRANSFORMER = (
    "transformer.", "unet.", "model.diffusion_model.", "diffusion_model.", "lora_unet_", "lora_transformer_",
)  # fmt: skip
# What wrappers of modules put before and between the names of a model.
_WRAPPERS = ("base_model.model.", "base_model.", "module.", "lycoris_")
_WRAPPERS_INSIDE = re.compile(r"(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# Tencent's own trainer of HunyuanVideo-I2V begins its keys so.
_IMAGE_TO_VIDEO = re.compile(r"hunyuan_?video_i2v_lora_", re.IGNORECASE)
_TEXT_ENCODER = re.compile(
    r"(base_model\.model\.)?(lora_te\d*_|lora_(clip|llama|llm|t5)|text_encoders?[._\d]|te\d?\.|clip_|t5|text_model\.|"
    r"llama|language_model\.|cond_stage_model\.|conditioner\.|model\.layers\.)"
)
_FIRST_PARTS = re.compile(
    r"(transformer_blocks|single_transformer_blocks|context_embedder|x_embedder|time_text_embed|norm_out|proj_out|"
    r"double_blocks|single_blocks|img_in|txt_in|time_in|vector_in|guidance_in|final_layer)([._]|$)"
)


def find_layer(key: str, known: Collection[str]) -> tuple[str, str] | None:
    """(layer as the file spells it, what follows it); None for a key that names no layer of ``known``."""
    name = _unwrapped(key)[0]
    dots = [match.start() for match in re.finditer(r"\.", name)]
    found = next((dot for dot in reversed(dots) if name[:dot] in known), None)
    return None if found is None else (name[:found], name[found + 1 :])


def kind_of(ending: str) -> tuple[str, str | None] | None:
    """(what a key holds, the name of its adapter if it has one); None for an ending that cannot be added."""
    for kind, pattern in _KINDS.items():
        if (match := re.fullmatch(pattern, ending)) is not None:
            return kind, match.groupdict().get("adapter")
    return None


def why_not_added(ending: str) -> str:
    """What an ending without a kind stands for, in words, and what to do."""
    title = _title_of(ending) or f"'{ending}'"
    return (
        f"is of a kind that cannot be added: {title}; use a plain LoRA, a LoCon, LoHa or LoKr, or a whole difference "
        "(.diff)"
    )


def why_never_added(key: str) -> str | None:
    """As :func:`why_not_added`, for a key of a transformer whose end has no kind, wherever its layer ends."""
    ends = [key[match.end() :] for match in re.finditer(r"\.", key)]
    if not names_transformer(key) or not ends or any(kind_of(end) for end in ends):
        return None
    return why_not_added(next((end for end in ends if _title_of(end)), ends[-1]))


def _title_of(ending: str) -> str | None:
    return next((title for pattern, title in _TITLES.items() if re.fullmatch(pattern, ending)), None)


def names_transformer(key: str) -> bool:
    """Whether a key speaks of a transformer like this one, even if it names none of its layers."""
    if _TEXT_ENCODER.match(key):
        return False
    name, is_named = _unwrapped(key)
    return is_named or _FIRST_PARTS.match(name) is not None


def is_image_to_video(key: str) -> bool:
    """Whether a key is of Tencent's trainer for HunyuanVideo-I2V."""
    return _IMAGE_TO_VIDEO.match(key) is not None


def _unwrapped(key: str) -> tuple[str, bool]:
    """A key without what stands before the layer, and whether that says that it is the transformer's."""
    name, is_named = _WRAPPERS_INSIDE.sub("", key), False
    while prefix := next((prefix for prefix in (*_WRAPPERS, *_TRANSFORMER) if name.startswith(prefix)), None):
        is_named |= prefix in _TRANSFORMER
        name = name.removeprefix(prefix)
    return name, is_named
