"""LoRAs: low-rank changes of the transformer's weights, read from files and added to the model.

If a layer's weights are in full precision, the change is merged: ``W += scale * (alpha / r) * B @ A``, with
``A`` [r, in] and ``B`` [out, r]. Nothing else of the LoRA stays in memory, steps take no longer, and offload,
layerwise casting, quantization and compiled blocks see the usual layers. Weights that are already quantized
cannot be changed in place; there peft keeps A and B as a separate branch of the layer:
``y = W x + scale * (alpha / r) * B (A x)``. Knows nothing about where the files come from.
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
from ...weights.lora_fit import Layer
from ...weights.lora_header import read_header
from .lora_layer import Changes
from .lora_reader import read_changes

_PLAIN = (torch.float32, torch.bfloat16, torch.float16)
# Above this share, rounding loses little. A change of 0.3 % of the weights' standard deviation keeps 93 % in bfloat16,
# one of 1 % keeps 99.98 %; measured on normally distributed weights.
_KEPT_ENOUGH = 0.9
_SAMPLED_ROWS = 32  # rows of each weight that are used to measure this


@dataclass(frozen=True)
class LoadedLora:
    """A LoRA that has been added.

    Attributes:
        path: as configured.
        file: the file that was read.
        scale: the factor of its change.
        hashes: SHA-256 of each file that determines the change, by its path as configured.
        layers: number of the transformer's layers that it changes.
        notes: messages for the user, such as keys that were not used.
    """

    path: str
    file: Path
    scale: float
    hashes: dict[str, str]
    layers: int
    notes: tuple[str, ...] = ()


class Weighted(Protocol):
    """A module with a ``weight``."""

    weight: torch.nn.Parameter
    bias: torch.nn.Parameter | None


@torch.no_grad()
def add_loras(transformer: HunyuanVideoTransformer3DModel, loras: Sequence[LoraConfig]) -> list[LoadedLora]:
    """Add LoRAs to a transformer that is loaded, but not yet placed, hooked or compiled.

    The weights become ``W + sum of scale * alpha / r * B @ A``, summed in float32 and rounded once. A second call
    adds to the result of the first. Reads and checks all files before changing anything. Takes 10 ns per weight on
    one CPU thread (two minutes for all layers of the 13 B model), less with more threads.

    Args:
        transformer: its layers are changed in place.
        loras: a file and a scale each; scale 0 changes nothing.

    Raises:
        ConfigError: a file is not found, here or on the Hub; or peft is missing and the transformer is quantized.
        ModelLoadError: a file cannot be downloaded, is not a safetensors file, is damaged, was made for another model,
            or contains a change that cannot be added. Each message begins with ``lora=``.
    """
    modules = weighted_modules(transformer)
    layers = {name: _layer(module) for name, module in modules.items()}
    takes_image = transformer.config.image_condition_type is not None
    read = [read_changes(lora, read_header(lora, takes_image), layers) for lora in loras]
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
                f"rounding to the weights' precision keeps only {kept:.0%} of the LoRAs' change; their effect is weak "
                "at this scale"
            )
    _add_to_biases(modules, active)
    _add_adapters(transformer, modules, changed - merged, active)
    return [
        LoadedLora(
            c.config.path, c.header.file, c.config.scale, c.header.hashes(c.config), len(c.layers), tuple(c.notes)
        )
        for c in read
    ]


def weighted_modules(transformer: HunyuanVideoTransformer3DModel) -> dict[str, Weighted]:
    """The layers that a LoRA may change, by name: linear layers, the patch embedding and the norms."""
    found = {
        name: module for name, module in transformer.named_modules() if getattr(module, "weight", None) is not None
    }
    return cast("dict[str, Weighted]", found)


def _layer(module: Weighted) -> Layer:
    """The layer's shape; for a quantized layer, the shape before quantization."""
    if isinstance(module, torch.nn.Linear):
        return Layer((module.out_features, module.in_features), module.bias is not None)
    return Layer(tuple(module.weight.shape), getattr(module, "bias", None) is not None)


def _check_low_rank(changes: Changes, layers: set[str]) -> None:
    """Reject changes that peft cannot keep as a branch of a quantized layer."""
    for name in sorted(layers & changes.weights.keys()):
        if changes.weights[name].low_rank() is None:
            raise changes.fault(
                f"its change of {name} is a full matrix or has a high rank, which cannot be added to quantized "
                "weights; use a profile without quantization and no GGUF file, or a plain LoRA"
            )


def _is_plain(weight: torch.Tensor) -> bool:
    """Whether a weight holds plain values that can be added to, not the storage of a quantized weight."""
    return type(weight) is torch.nn.Parameter and type(weight.data) is torch.Tensor and weight.dtype in _PLAIN


def _merge(modules: Mapping[str, Weighted], layers: set[str], active: Sequence[Changes]) -> float:
    """Merge the changes into the weights; returns the share of the change that survives rounding (1: all of it).

    With ``d`` the exact change and ``r`` the rounded one, over the sampled rows: ``sum(r * d) / sum(d * d)``.
    """
    survived = wanted = 0.0
    for name in sorted(layers):
        weight = modules[name].weight
        # A copy, because the old weights may be memory-mapped from the checkpoint's file.
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
    """Add LoRAs of quantized layers with peft; raises if peft adds them to other layers."""
    scales: dict[str, float] = {}
    for number, changes in enumerate(active):
        adapter, state = f"lora_{number}", {}
        wanted = sorted(layers & changes.weights.keys())
        for name in wanted:
            # By default diffusers would use the dtype of the stored weights, which are integers.
            dtype = getattr(modules[name], "compute_dtype", None) or transformer.dtype
            change = changes.weights[name]
            factors = change.low_rank()
            assert factors is not None  # checked before anything is changed
            state[f"{name}.lora_A.weight"] = factors[0].to(dtype)
            state[f"{name}.lora_B.weight"] = (change.factor * factors[1].float()).to(dtype)
        if not state:
            continue
        with warnings.catch_warnings():
            # peft warns about layers whose name ends like a wanted one (checked below), and that it cannot merge.
            warnings.filterwarnings("ignore", module="peft")
            transformer.load_lora_adapter(state, adapter_name=adapter, prefix=None)
        found = sorted(name for name, module in transformer.named_modules() if adapter in getattr(module, "lora_A", ()))
        if found != wanted:
            raise changes.fault(f"peft added it to {len(found)} layers instead of {len(wanted)}")
        scales[adapter] = changes.config.scale
    if scales:
        transformer.set_adapters(list(scales), list(scales.values()))
