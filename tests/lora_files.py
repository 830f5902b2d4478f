"""LoRA files for the built-in checkpoint in every published spelling, and the changes that they should make."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

RANK = 4
STYLES = ("diffusers", "tencent", "comfy", "kohya")
IMAGE_STYLES = (*STYLES, "tencent-i2v")  # the last is Tencent's trainer for image to video


@dataclass(frozen=True)
class Layer:
    """A layer of Tencent's code: its names, and diffusers' names of its parts with their rows."""

    tencent: str
    comfy: str
    parts: tuple[str, ...]
    rows: tuple[int, ...]
    columns: int = 128
    swapped: bool = False  # the halves of its rows are swapped in diffusers


_QKV = ("to_q", "to_k", "to_v")
_SINGLE = "single_transformer_blocks.3"
_REFINER = "context_embedder.token_refiner.refiner_blocks.0"
_TENCENT_REFINER = "txt_in.individual_token_refiner.blocks.0"
LAYERS = (
    Layer(
        tencent="double_blocks.1.img_attn_qkv",
        comfy="double_blocks.1.img_attn.qkv",
        parts=tuple(f"transformer_blocks.1.attn.{part}" for part in _QKV),
        rows=(128, 128, 128),
    ),
    Layer(
        tencent="double_blocks.0.txt_attn_qkv",
        comfy="double_blocks.0.txt_attn.qkv",
        parts=tuple(f"transformer_blocks.0.attn.add_{part}_proj" for part in "qkv"),
        rows=(128, 128, 128),
    ),
    Layer(
        tencent="double_blocks.0.img_mlp.fc1",
        comfy="double_blocks.0.img_mlp.0",
        parts=("transformer_blocks.0.ff.net.0.proj",),
        rows=(512,),
    ),
    Layer(
        tencent="double_blocks.1.txt_mod.linear",
        comfy="double_blocks.1.txt_mod.lin",
        parts=("transformer_blocks.1.norm1_context.linear",),
        rows=(768,),
    ),
    Layer(
        tencent="single_blocks.3.linear1",
        comfy="single_blocks.3.linear1",
        parts=(*(f"{_SINGLE}.attn.{part}" for part in _QKV), f"{_SINGLE}.proj_mlp"),
        rows=(128, 128, 128, 512),
    ),
    Layer(
        tencent="single_blocks.2.linear2",
        comfy="single_blocks.2.linear2",
        parts=("single_transformer_blocks.2.proj_out",),
        rows=(128,),
        columns=640,
    ),
    Layer(
        tencent="single_blocks.0.modulation.linear",
        comfy="single_blocks.0.modulation.lin",
        parts=("single_transformer_blocks.0.norm.linear",),
        rows=(384,),
    ),
    Layer(
        tencent=f"{_TENCENT_REFINER}.self_attn_qkv",
        comfy=f"{_TENCENT_REFINER}.self_attn.qkv",
        parts=tuple(f"{_REFINER}.attn.{part}" for part in _QKV),
        rows=(128, 128, 128),
    ),
    Layer(
        tencent="final_layer.adaLN_modulation.1",
        comfy="final_layer.adaLN_modulation.1",
        parts=("norm_out.linear",),
        rows=(256,),
        swapped=True,
    ),
    Layer(tencent="final_layer.linear", comfy="final_layer.linear", parts=("proj_out",), rows=(64,)),
)
ATTENTION = LAYERS[:1]


@dataclass(frozen=True)
class LoraFile:
    """A file, its keys and its changes at scale 1, by diffusers' names: weights [out, in] and biases [out]."""

    path: Path
    keys: tuple[str, ...]
    weights: dict[str, torch.Tensor]
    biases: dict[str, torch.Tensor]


def make_lora(
    path: Path,
    style: str = "diffusers",
    layers: tuple[Layer, ...] = LAYERS,
    alpha: float | None = None,
    seed: int = 0,
    size: float = 0.05,
    biases: bool = False,
    dtype: torch.dtype = torch.float32,
    more: dict[str, torch.Tensor] | None = None,
) -> LoraFile:
    """Write a LoRA with random factors.

    Args:
        style: one of ``IMAGE_STYLES``.
        alpha: None omits it, which means the rank.
        size: standard deviation of the factor B and of the biases.
        biases: change the biases too, as extracted LoRAs do.
        dtype: the dtype of the file; the expected changes are computed from the rounded factors.
        more: additional keys.
    """
    random = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    expected: dict[str, torch.Tensor] = {}
    expected_biases: dict[str, torch.Tensor] = {}
    for layer in layers:
        down = torch.randn(RANK, layer.columns, generator=random).to(dtype)
        up = (size * torch.randn(sum(layer.rows), RANK, generator=random)).to(dtype)
        bias = (size * torch.randn(sum(layer.rows), generator=random)).to(dtype)
        delta = (1.0 if alpha is None else alpha / RANK) * up.float() @ down.float()
        expected |= dict(zip(layer.parts, delta.split(layer.rows), strict=True))
        if biases:
            expected_biases |= dict(zip(layer.parts, bias.float().split(layer.rows), strict=True))
        for name, rows, bias_rows in _named(layer, style, up, bias):
            down_key, up_key = _factors(style)
            tensors |= {f"{name}.{down_key}": down.clone(), f"{name}.{up_key}": rows.contiguous()}
            tensors |= {f"{name}.diff_b": bias_rows.contiguous()} if biases else {}
            if alpha is not None and style != "diffusers":
                tensors[f"{name}.alpha"] = torch.tensor(alpha, dtype=torch.float32)
    tensors |= more or {}
    save_file(tensors, path, _metadata(alpha) if alpha is not None and style == "diffusers" else None)
    return LoraFile(path, tuple(tensors), expected, expected_biases)


def _named(
    layer: Layer, style: str, up: torch.Tensor, bias: torch.Tensor
) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """The layer's names in a style, with their rows."""
    if style == "diffusers":
        parts = zip(layer.parts, up.split(layer.rows), bias.split(layer.rows), strict=True)
        return [(f"transformer.{name}", rows, bias_rows) for name, rows, bias_rows in parts]
    if layer.swapped:
        up, bias = (torch.cat(rows.chunk(2)[::-1]) for rows in (up, bias))
    name = {
        "tencent": f"transformer.{layer.tencent}",
        "comfy": f"diffusion_model.{layer.comfy}",
        "kohya": f"lora_unet_{layer.tencent.replace('.', '_')}",
        "tencent-i2v": f"Hunyuan_video_I2V_lora_{layer.tencent.replace('.', '_')}",
    }[style]
    return [(name, up, bias)]


def _factors(style: str) -> tuple[str, str]:
    if style in ("diffusers", "tencent"):
        return "lora_A.weight", "lora_B.weight"
    return "lora_down.weight", "lora_up.weight"


def _metadata(alpha: float) -> dict[str, str]:
    """As diffusers' ``save_lora_weights`` writes it."""
    settings = {"transformer.r": RANK, "transformer.lora_alpha": alpha, "transformer.use_rslora": False}
    return {"format": "pt", "lora_adapter_metadata": json.dumps(settings)}
