"""Writes GGUF files of a transformer like the published ones, with the names of Tencent's checkpoint.

The names are the inverse of diffusers' ``convert_hunyuan_video_transformer_to_diffusers``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import gguf
import torch

Tensors = Mapping[str, torch.Tensor]
# diffusers' name, Tencent's: the first match for the beginning, then the first match for the rest.
_PLACES = (
    (r"^context_embedder\.token_refiner\.refiner_blocks\.", "txt_in.individual_token_refiner.blocks."),
    (r"^context_embedder\.time_text_embed\.timestep_embedder\.", "txt_in.t_embedder."),
    (r"^context_embedder\.time_text_embed\.text_embedder\.", "txt_in.c_embedder."),
    (r"^context_embedder\.proj_in\.", "txt_in.input_embedder."),
    (r"^time_text_embed\.timestep_embedder\.", "time_in."),
    (r"^time_text_embed\.guidance_embedder\.", "guidance_in."),
    (r"^time_text_embed\.text_embedder\.", "vector_in."),
    (r"^x_embedder\.", "img_in."),
    (r"^norm_out\.linear\.", "final_layer.adaLN_modulation.1."),
    (r"^proj_out\.", "final_layer.linear."),
    (r"^transformer_blocks\.", "double_blocks."),
    (r"^single_transformer_blocks\.", "single_blocks."),
)
_LAYERS = {
    "txt_in.individual": (
        (r"\.attn\.qkv\.", ".self_attn_qkv."), (r"\.attn\.to_out\.0\.", ".self_attn_proj."),
        (r"\.ff\.net\.0\.proj\.", ".mlp.fc1."), (r"\.ff\.net\.2\.", ".mlp.fc2."),
        (r"\.norm_out\.linear\.", ".adaLN_modulation.1."),
    ),
    "double": (
        (r"\.attn\.qkv\.", ".img_attn_qkv."), (r"\.attn\.added_qkv\.", ".txt_attn_qkv."),
        (r"\.attn\.to_out\.0\.", ".img_attn_proj."), (r"\.attn\.to_add_out\.", ".txt_attn_proj."),
        (r"\.attn\.norm_([qk])\.", r".img_attn_\1_norm."), (r"\.attn\.norm_added_([qk])\.", r".txt_attn_\1_norm."),
        (r"\.norm1\.linear\.", ".img_mod.linear."), (r"\.norm1_context\.linear\.", ".txt_mod.linear."),
        (r"\.ff\.net\.0\.proj\.", ".img_mlp.fc1."), (r"\.ff\.net\.2\.", ".img_mlp.fc2."),
        (r"\.ff_context\.net\.0\.proj\.", ".txt_mlp.fc1."), (r"\.ff_context\.net\.2\.", ".txt_mlp.fc2."),
    ),
    "single": (
        (r"\.proj_out\.", ".linear2."), (r"\.norm\.linear\.", ".modulation.linear."),
        (r"\.attn\.norm_([qk])\.", r".\1_norm."),
    ),
    "time_in": ((r"\.linear_1\.", ".mlp.0."), (r"\.linear_2\.", ".mlp.2.")),
    "guidance_in": ((r"\.linear_1\.", ".mlp.0."), (r"\.linear_2\.", ".mlp.2.")),
    "txt_in.t_embedder": ((r"\.linear_1\.", ".mlp.0."), (r"\.linear_2\.", ".mlp.2.")),
    "vector_in": ((r"\.linear_1\.", ".in_layer."), (r"\.linear_2\.", ".out_layer.")),
}  # fmt: skip


def official_names(tensors: Tensors) -> dict[str, torch.Tensor]:
    """The tensors of diffusers' transformer under Tencent's names, with layers fused as in Tencent's checkpoint."""
    fused = _fuse(dict(tensors))
    return {_official(name): tensor for name, tensor in fused.items()}


def write_gguf(
    path: Path,
    tensors: Tensors,
    kind: str,
    chosen: Callable[[str, torch.Tensor], bool] | None = None,
    architecture: str = "hyvid",
    title: str | None = None,
) -> Path:
    """Write a GGUF file with the weights of the blocks in this kind, such as ``Q8_0``, and the others in float32.

    ``chosen`` selects other weights for this kind. ``architecture`` and ``title`` are written to the header.
    """
    writer = gguf.GGUFWriter(str(path), architecture)
    if title is not None:
        writer.add_name(title)
    for name, tensor in tensors.items():
        in_kind = (chosen or _is_in_blocks)(name, tensor)
        each = gguf.GGMLQuantizationType[kind if in_kind else "F32"]
        writer.add_tensor(name, gguf.quants.quantize(tensor.float().contiguous().numpy(), each), raw_dtype=each)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _is_in_blocks(name: str, tensor: torch.Tensor) -> bool:
    return tensor.ndim == 2 and bool(re.match(r"(double|single|transformer|single_transformer)_blocks\.", name))


def _fuse(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Fuse queries, keys and values, in single blocks also the feed-forward; swap scale and shift."""
    for name in [name for name in tensors if ".attn.to_q." in name]:
        block, part = name.split(".attn.to_q.")
        parts = [tensors.pop(f"{block}.attn.{layer}.{part}") for layer in ("to_q", "to_k", "to_v")]
        if block.startswith("single"):
            tensors[f"{block}.linear1.{part}"] = torch.cat([*parts, tensors.pop(f"{block}.proj_mlp.{part}")])
        else:
            tensors[f"{block}.attn.qkv.{part}"] = torch.cat(parts)
    for name in [name for name in tensors if ".attn.add_q_proj." in name]:
        block, part = name.split(".attn.add_q_proj.")
        added = [tensors.pop(f"{block}.attn.add_{layer}_proj.{part}") for layer in "qkv"]
        tensors[f"{block}.attn.added_qkv.{part}"] = torch.cat(added)
    for part in ("weight", "bias"):
        scale, shift = tensors[f"norm_out.linear.{part}"].chunk(2)
        tensors[f"norm_out.linear.{part}"] = torch.cat([shift, scale])
    return tensors


def _official(name: str) -> str:
    beginning, replacement = next(place for place in _PLACES if re.match(place[0], name))
    name = re.sub(beginning, replacement, name)
    for place, layers in _LAYERS.items():
        if name.startswith(place):
            for layer, official in layers:
                name = re.sub(layer, official, name)
    return name
