"""The names of the transformer's layers in files written by other programs.

Three naming schemes are in use: those of diffusers, of Tencent's code and of ComfyUI, each with dots or, as in kohya's
trainers, with underscores. The loader of diffusers supports the first, and the second only for files that contain the
image stream's attention. Does not depend on tensors.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

# From names in diffusers to names in Tencent's code, following the conversion of full checkpoints in diffusers
# (loaders/single_file_utils.py): first the block, then the layer within it.
_BLOCKS = (
    (r"transformer_blocks\.(\d+)\.", r"double_blocks.\1."),
    (r"single_transformer_blocks\.(\d+)\.", r"single_blocks.\1."),
    (r"context_embedder\.token_refiner\.refiner_blocks\.(\d+)\.", r"txt_in.individual_token_refiner.blocks.\1."),
    ("", ""),
)
_LAYERS = {
    "double_blocks": {
        r"attn\.to_[qkv]": "img_attn_qkv",
        r"attn\.to_out\.0": "img_attn_proj",
        r"attn\.add_[qkv]_proj": "txt_attn_qkv",
        r"attn\.to_add_out": "txt_attn_proj",
        r"norm1\.linear": "img_mod.linear",
        r"norm1_context\.linear": "txt_mod.linear",
        r"ff\.net\.0\.proj": "img_mlp.fc1",
        r"ff\.net\.2": "img_mlp.fc2",
        r"ff_context\.net\.0\.proj": "txt_mlp.fc1",
        r"ff_context\.net\.2": "txt_mlp.fc2",
        r"attn\.norm_([qk])": r"img_attn_\1_norm",
        r"attn\.norm_added_([qk])": r"txt_attn_\1_norm",
    },
    "single_blocks": {
        r"attn\.to_[qkv]|proj_mlp": "linear1",
        "proj_out": "linear2",
        r"norm\.linear": "modulation.linear",
        r"attn\.norm_([qk])": r"\1_norm",
    },
    "txt_in": {
        r"attn\.to_[qkv]": "self_attn_qkv",
        r"attn\.to_out\.0": "self_attn_proj",
        r"ff\.net\.0\.proj": "mlp.fc1",
        r"ff\.net\.2": "mlp.fc2",
        r"norm_out\.linear": "adaLN_modulation.1",
        r"(norm[12])": r"\1",
    },
    "": {
        r"x_embedder\.proj": "img_in.proj",
        r"context_embedder\.proj_in": "txt_in.input_embedder",
        r"context_embedder\.time_text_embed\.timestep_embedder\.linear_1": "txt_in.t_embedder.mlp.0",
        r"context_embedder\.time_text_embed\.timestep_embedder\.linear_2": "txt_in.t_embedder.mlp.2",
        r"context_embedder\.time_text_embed\.text_embedder\.linear_1": "txt_in.c_embedder.linear_1",
        r"context_embedder\.time_text_embed\.text_embedder\.linear_2": "txt_in.c_embedder.linear_2",
        r"time_text_embed\.timestep_embedder\.linear_1": "time_in.mlp.0",
        r"time_text_embed\.timestep_embedder\.linear_2": "time_in.mlp.2",
        r"time_text_embed\.guidance_embedder\.linear_1": "guidance_in.mlp.0",
        r"time_text_embed\.guidance_embedder\.linear_2": "guidance_in.mlp.2",
        r"time_text_embed\.text_embedder\.linear_1": "vector_in.in_layer",
        r"time_text_embed\.text_embedder\.linear_2": "vector_in.out_layer",
        r"norm_out\.linear": "final_layer.adaLN_modulation.1",
        "proj_out": "final_layer.linear",
    },
}
# From Tencent's names to ComfyUI's.
_COMFY = (
    (r"_attn_(qkv|proj)$", r"_attn.\1"),
    (r"_attn_q_norm$", "_attn.norm.query_norm"),
    (r"_attn_k_norm$", "_attn.norm.key_norm"),
    (r"\.q_norm$", ".norm.query_norm"),
    (r"\.k_norm$", ".norm.key_norm"),
    (r"(_mod|\.modulation)\.linear$", r"\1.lin"),
    (r"mlp\.fc1$", "mlp.0"),
    (r"mlp\.fc2$", "mlp.2"),
    (r"(time_in|guidance_in|t_embedder)\.mlp\.0$", r"\1.in_layer"),
    (r"(time_in|guidance_in|t_embedder)\.mlp\.2$", r"\1.out_layer"),
    (r"c_embedder\.linear_1$", "c_embedder.in_layer"),
    (r"c_embedder\.linear_2$", "c_embedder.out_layer"),
)
_BLOCK_KINDS = ("transformer_blocks", "single_transformer_blocks")
_DOUBLE_BLOCKS = 20  # in the 13 B model
# Layers that Tencent's code fuses into one, in the order of their rows in the fused weight.
_ROWS = ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "proj_mlp")


def spellings(layers: Iterable[str]) -> dict[str, list[str]]:
    """Map every name of a layer to its names in diffusers: several, in order of their rows, for a fused layer."""
    found: dict[str, list[str]] = {}
    for layer in sorted(layers, key=_row):
        names = {layer}
        if (original := original_name(layer)) is not None:
            comfy = original
            for pattern, replacement in _COMFY:
                comfy = re.sub(pattern, replacement, comfy)
            names |= {original, comfy}
        for name in names | {name.replace(".", "_") for name in names}:
            found.setdefault(name, []).append(layer)
    return found


def original_name(layer: str) -> str | None:
    """The name in Tencent's code of a layer, or of the fused layer that contains it; None if there is none."""
    for block, replacement in _BLOCKS:
        if (match := re.match(block, layer)) is None:
            continue
        start = match.expand(replacement)
        rest = layer[match.end() :]
        for pattern, name in _LAYERS[start.split(".")[0]].items():
            if (found := re.fullmatch(pattern, rest)) is not None:
                return start + found.expand(name)
    return None


def is_like_flux(changed: Collection[str], layers: Collection[str]) -> bool:
    """Whether the changed layers are exactly the blocks of FLUX.1, which have the same names and shapes.

    FLUX.1 has 19 double and 38 single blocks (HunyuanVideo has 20 and 40), and no token refiner.

    Args:
        changed: layers that a LoRA changes, by their names in diffusers.
        layers: all layers of the transformer.
    """
    if any(layer.startswith(("context_embedder", "x_embedder")) for layer in changed):
        return False
    double, single = (_blocks(changed, kind) for kind in _BLOCK_KINDS)
    all_double, all_single = (_blocks(layers, kind) for kind in _BLOCK_KINDS)
    fewer_double, fewer_single = (set(range(len(all_double) - 1)), set(range(len(all_single) - 2)))
    if double and single:
        return double == fewer_double and single == fewer_single
    # A single kind of block is conclusive only for the full number of blocks, not for small test models.
    return len(all_double) == _DOUBLE_BLOCKS and (double == fewer_double or single == fewer_single)


def _blocks(layers: Iterable[str], kind: str) -> set[int]:
    return {int(match[1]) for layer in layers if (match := re.match(rf"{kind}\.(\d+)\.", layer)) is not None}


def _row(layer: str) -> int:
    last = layer.rpartition(".")[2]
    return _ROWS.index(last) if last in _ROWS else 0
