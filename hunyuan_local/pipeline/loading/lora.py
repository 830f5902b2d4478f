"""LoRAs: low-rank changes of the transformer's weights, read from a file and added.

A layer of plain numbers gets the change merged into its weights, after which nothing of the LoRA is left:
no step takes longer or needs more memory, and offload, layerwise casting, quantisation and compiled
blocks find the layers they know. A layer whose weights are quantised already cannot be changed in place; it
keeps the LoRA beside it, through peft. Knows nothing about where files come from.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import torch
from diffusers import HunyuanVideoTransformer3DModel

from ...config import LoraConfig
from ...config.extras import require_peft
from ...weights.lora import spellings
from ...weights.lora_header import read_header
from ...weights.single_file import sha256_of
from .lora_file import read_changes
from .lora_group import Changes, Layer

_PLAIN = (torch.float32, torch.bfloat16, torch.float16)
# Rounding loses nothing to speak of above this. A change of 0.3 % of the weights' own spread keeps 93 % in
# bfloat16, one of 1 % keeps 99.98 %, measured on normally distributed weights.
_KEPT_ENOUGH = 0.9
_SAMPLED_ROWS = 32  # of each weight, to see how much is kept


@dataclass(frozen=True)
class LoadedLora:
    """A LoRA that has been added.

    Attributes:
        path: as configured.
        file: where it was read from.
        scale: what its change is multiplied by.
        sha256: of the file.
        layers: how many of the transformer's layers it changes.
        notes: what the user should know of it, such as keys that were not used.
    """

    path: str
    file: Path
    scale: float
    sha256: str
    layers: int
    notes: tuple[str, ...] = ()


class Weighted(Protocol):
    """A module with a weight of its own."""

    weight: torch.nn.Parameter
    bias: torch.nn.Parameter | None


@torch.no_grad()
def add_loras(transformer: HunyuanVideoTransformer3DModel, loras: Sequence[LoraConfig]) -> list[LoadedLora]:
    """Add LoRAs to a transformer that has been loaded and not yet been placed, hooked or compiled.

    The weights become ``W + sum of scale * alpha / r * B @ A``, added up in float32 and rounded once. A
    second call would add to what the first one made. All files are read and checked before anything is
    changed. On one CPU thread that takes 10 ns a weight, two minutes for all layers of the 13 B model;
    more threads share it.

    Args:
        transformer: its layers are changed in place.
        loras: each a file and a scale; 0 changes nothing.

    Raises:
        ConfigError: no such file, here or on the Hub; peft is missing and the transformer is quantised.
        ModelLoadError: a file cannot be fetched, is not a safetensors file, is damaged, was made for another model,
            or holds what cannot be added; each begins with ``lora=``.
    """
    modules = weighted_modules(transformer)
    layers = {name: _layer(module) for name, module in modules.items()}
    known = spellings(layers)
    read = [read_changes(lora, read_header(lora), known, layers) for lora in loras]
    active = [changes for changes in read if changes.config.scale != 0]
    changed = set().union(*(changes.weights for changes in active))
    merged = {name for name in changed if _is_plain(modules[name].weight)}
    if changed - merged:
        require_peft(loras)
        for changes in active:
            _check_low_rank(changes, changed - merged)
    kept = _merge(modules, merged, active)
    if kept < _KEPT_ENOUGH:
        for changes in active:
            changes.notes.append(
                f"rounding to the weights' precision keeps {kept:.0%} of what the LoRAs change; they are weak at "
                "this scale"
            )
    _add_to_biases(modules, active)
    _add_adapters(transformer, modules, changed - merged, active)
    return [
        LoadedLora(
            c.config.path, c.header.file, c.config.scale, sha256_of(c.header.file), len(c.layers), tuple(c.notes)
        )
        for c in read
    ]


def weighted_modules(transformer: HunyuanVideoTransformer3DModel) -> dict[str, Weighted]:
    """The layers that a LoRA may change, by name: linear ones, the patch embedding and the norms."""
    found = {
        name: module for name, module in transformer.named_modules() if getattr(module, "weight", None) is not None
    }
    return cast("dict[str, Weighted]", found)


def _layer(module: Weighted) -> Layer:
    """Of a quantised layer the sizes before it was quantised."""
    if isinstance(module, torch.nn.Linear):
        return Layer((module.out_features, module.in_features), module.bias is not None)
    return Layer(tuple(module.weight.shape), getattr(module, "bias", None) is not None)


def _check_low_rank(changes: Changes, layers: set[str]) -> None:
    """Refuse what cannot be kept beside quantised layers."""
    for name in sorted(layers & changes.weights.keys()):
        if changes.weights[name].low_rank() is None:
            raise changes.fault(
                f"its change of {name} is a whole matrix, or one of a high rank, which cannot be kept beside quantised "
                "weights; use a profile without quantization and no GGUF file, or a plain LoRA"
            )


def _is_plain(weight: torch.Tensor) -> bool:
    """Whether a weight is numbers that can be added to, and not the storage of a quantised one."""
    return type(weight) is torch.nn.Parameter and type(weight.data) is torch.Tensor and weight.dtype in _PLAIN


def _merge(modules: Mapping[str, Weighted], layers: set[str], active: Sequence[Changes]) -> float:
    """Change weights; returns how much of the change survives the rounding, 1 for all of it."""
    survived = wanted = 0.0
    for name in sorted(layers):
        weight = modules[name].weight
        # A copy: the old numbers may be the checkpoint's file, mapped into memory.
        exact = weight.data.to(torch.float32, copy=True)
        for changes in active:
            if name in changes.weights:
                changes.weights[name].add_to(exact, changes.config.scale)
        before, weight.data = weight.data, exact.to(weight.dtype)
        before, after, exact = (rows[:_SAMPLED_ROWS].float() for rows in (before, weight.data, exact))
        survived += torch.sum((after - before) * (exact - before)).item()
        wanted += torch.sum((exact - before) ** 2).item()
    return survived / wanted if wanted else 1.0


def _add_to_biases(modules: Mapping[str, Weighted], active: Sequence[Changes]) -> None:
    for changes in active:
        for name, change in changes.biases.items():
            bias = modules[name].bias
            assert bias is not None  # checked when the file was read
            exact = bias.data.to(torch.float32, copy=True)
            change.add_to(exact, changes.config.scale)
            bias.data = exact.to(bias.dtype)


def _add_adapters(
    transformer: HunyuanVideoTransformer3DModel,
    modules: Mapping[str, Weighted],
    layers: set[str],
    active: Sequence[Changes],
) -> None:
    """Let peft put what cannot be merged beside the layers; raises if it puts it elsewhere."""
    scales: dict[str, float] = {}
    for number, changes in enumerate(active):
        adapter, state = f"lora_{number}", {}
        wanted = sorted(layers & changes.weights.keys())
        for name in wanted:
            # The library's own choice would be that of the stored weights, which are integers.
            dtype = getattr(modules[name], "compute_dtype", None) or transformer.dtype
            change = changes.weights[name]
            factors = change.low_rank()
            assert factors is not None  # checked before anything is changed
            state[f"{name}.lora_A.weight"] = factors[0].to(dtype)
            state[f"{name}.lora_B.weight"] = (change.factor * factors[1].float()).to(dtype)
        if not state:
            continue
        with warnings.catch_warnings():
            # Of layers whose name ends like a wanted one, which is checked below, and that merging is not possible.
            warnings.filterwarnings("ignore", module="peft")
            transformer.load_lora_adapter(state, adapter_name=adapter, prefix=None)
        found = sorted(name for name, module in transformer.named_modules() if adapter in getattr(module, "lora_A", ()))
        if found != wanted:
            raise changes.fault(f"peft added it to {len(found)} layers of the {len(wanted)} that it is for")
        scales[adapter] = changes.config.scale
    if scales:
        transformer.set_adapters(list(scales), list(scales.values()))
