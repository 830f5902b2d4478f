"""LoRAs: low-rank changes of the transformer's weights, read from a file and added.

A layer of plain numbers gets the change merged into its weights, after which nothing of the LoRA is left:
no step takes longer or needs more memory, and offload, layerwise casting, quantisation and compiled
blocks find the layers they know. A layer whose weights are quantised already cannot be changed in place; it
keeps the LoRA beside it, through peft. Knows nothing about where files come from.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import HunyuanVideoTransformer3DModel
from safetensors import SafetensorError, safe_open

from ...config import LoraConfig
from ...config.extras import require_peft
from ...errors import ModelLoadError
from ...weights.lora import parse_key, spellings
from ...weights.single_file import find_file, sha256_of

_PLAIN = (torch.float32, torch.bfloat16, torch.float16)
# Its rows are shift and scale in Tencent's code, scale and shift in diffusers.
_HALVES_SWAPPED = "final_layer.adaLN_modulation.1"
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


@dataclass(frozen=True)
class _Change:
    """Of a weight [out, in]: ``factor * up @ down``, of rank r. ``down`` [r, in], ``up`` [out, r], as in the file."""

    down: torch.Tensor
    up: torch.Tensor
    factor: float

    def add_to(self, weight: torch.Tensor, scale: float) -> None:
        """Add it to a weight in float32, in place."""
        up, down = (factor.to(weight.device).float() for factor in (self.up, self.down))
        weight.addmm_(up, down, alpha=scale * self.factor)


@dataclass
class _Changes:
    """What a file holds, by diffusers' name of the layer."""

    config: LoraConfig
    file: Path
    weights: dict[str, _Change] = field(default_factory=dict)
    biases: dict[str, torch.Tensor] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def layers(self) -> set[str]:
        return self.weights.keys() | self.biases.keys()

    def fault(self, text: str) -> ModelLoadError:
        return ModelLoadError(f"lora={self.config.path!r}: {text}")


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
        ModelLoadError: a file cannot be fetched, is no safetensors file, is damaged, or was made for
            another model.
    """
    linear = {name: module for name, module in transformer.named_modules() if isinstance(module, torch.nn.Linear)}
    known = spellings(linear)
    read = [_read(lora, find_file("lora", lora.path, ".safetensors"), known, linear) for lora in loras]
    active = [changes for changes in read if changes.config.scale != 0]
    changed = set().union(*(changes.weights for changes in active))
    merged = {name for name in changed if _is_plain(linear[name].weight)}
    if changed - merged:
        require_peft(loras)
    kept = _merge(linear, merged, active)
    if kept < _KEPT_ENOUGH:
        for changes in active:
            changes.notes.append(
                f"rounding to the weights' precision keeps {kept:.0%} of what the LoRAs change; they are weak at "
                "this scale"
            )
    _add_to_biases(linear, active)
    _add_adapters(transformer, linear, changed - merged, active)
    return [
        LoadedLora(c.config.path, c.file, c.config.scale, sha256_of(c.file), len(c.layers), tuple(c.notes))
        for c in read
    ]


def _is_plain(weight: torch.Tensor) -> bool:
    """Whether a weight is numbers that can be added to, and not the storage of a quantised one."""
    return type(weight) is torch.nn.Parameter and type(weight.data) is torch.Tensor and weight.dtype in _PLAIN


def _merge(linear: Mapping[str, torch.nn.Linear], layers: set[str], active: Sequence[_Changes]) -> float:
    """Change weights; returns how much of the change survives the rounding, 1 for all of it."""
    survived = wanted = 0.0
    for name in sorted(layers):
        weight = linear[name].weight
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


def _add_to_biases(linear: Mapping[str, torch.nn.Linear], active: Sequence[_Changes]) -> None:
    for changes in active:
        for name, delta in changes.biases.items():
            bias = linear[name].bias
            bias.data = (bias.data.float() + changes.config.scale * delta.to(bias.device).float()).to(bias.dtype)


def _add_adapters(
    transformer: HunyuanVideoTransformer3DModel,
    linear: Mapping[str, torch.nn.Linear],
    layers: set[str],
    active: Sequence[_Changes],
) -> None:
    """Let peft put what cannot be merged beside the layers; raises if it puts it elsewhere."""
    scales: dict[str, float] = {}
    for number, changes in enumerate(active):
        adapter, state = f"lora_{number}", {}
        wanted = sorted(layers & changes.weights.keys())
        for name in wanted:
            # The library's own choice would be that of the stored weights, which are integers.
            dtype = getattr(linear[name], "compute_dtype", None) or transformer.dtype
            change = changes.weights[name]
            state[f"{name}.lora_A.weight"] = change.down.to(dtype)
            state[f"{name}.lora_B.weight"] = (change.factor * change.up.float()).to(dtype)
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


def _read(
    config: LoraConfig, file: Path, known: Mapping[str, Sequence[str]], linear: Mapping[str, torch.nn.Linear]
) -> _Changes:
    """Read a file and check it against the transformer's layers."""
    changes = _Changes(config, file)
    try:
        with safe_open(file, "pt") as opened:
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 - it is no dict
            metadata = _adapter_metadata(opened.metadata())
    except (OSError, SafetensorError, ValueError) as error:
        raise changes.fault(f"{file} cannot be read as a safetensors file ({error}); fetch it again") from error
    groups: dict[str, dict[str, str]] = {}  # by the file's spelling of the layer: what is there of it, and its key
    for key in tensors:
        if (parsed := parse_key(key)) is not None and parsed[0] in known:
            groups.setdefault(parsed[0], {})[parsed[1]] = key
    used = {key for keys in groups.values() for key in keys.values()}
    _check_keys(changes, list(tensors), used)
    for spelling, keys in groups.items():
        _add_group(changes, spelling, {kind: tensors[key] for kind, key in keys.items()}, keys, metadata,
                   known[spelling], linear)  # fmt: skip
    return changes


def _check_keys(changes: _Changes, keys: list[str], used: set[str]) -> None:
    unused = [key for key in keys if key not in used]
    some = ", ".join(unused[:3]) or "none"
    if dora := [key for key in keys if "dora_scale" in key or "lora_magnitude_vector" in key]:
        raise changes.fault(f"{changes.file} is a DoRA ({dora[0]}), which cannot be added; use a plain LoRA")
    if not used:
        raise changes.fault(
            f"none of the {len(keys)} keys of {changes.file} belongs to a layer of this transformer (found: {some}; "
            "wanted are such as transformer.transformer_blocks.0.attn.to_q.lora_A.weight, "
            "diffusion_model.double_blocks.0.img_attn.qkv.lora_down.weight or "
            "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight); use a LoRA made for HunyuanVideo"
        )
    if unused:
        changes.notes.append(f"{len(unused)} of the {len(keys)} keys of {changes.file.name} are not used, as {some}")


def _add_group(
    changes: _Changes,
    spelling: str,
    tensors: dict[str, torch.Tensor],
    keys: dict[str, str],
    metadata: dict[str, Any],
    layers: Sequence[str],
    linear: Mapping[str, torch.nn.Linear],
) -> None:
    """What a file holds of one layer, or of several that its format has as one."""
    for kind, tensor in tensors.items():
        if not torch.isfinite(tensor.float()).all():
            raise changes.fault(f"{keys[kind]} holds numbers that are NaN or infinite; the file is damaged")
    if ("down" in tensors) != ("up" in tensors):
        half = keys.get("down") or keys["up"]
        raise changes.fault(f"{half} is there without its other half; the file is damaged")
    rows = [linear[name].out_features for name in layers]
    columns = linear[layers[0]].in_features
    if "down" in tensors:
        down, up = tensors["down"], tensors["up"]
        rank = down.shape[0]
        _check_shape(changes, keys["down"], down, (rank, columns))
        _check_shape(changes, keys["up"], up, (sum(rows), rank))
        alpha = tensors["alpha"].item() if "alpha" in tensors else _metadata_alpha(metadata, layers[0], rank)
        for name, part in zip(layers, torch.split(_in_diffusers_order(spelling, up), rows), strict=True):
            changes.weights[name] = _Change(down, part, alpha / rank)
    if "bias" in tensors:
        _check_shape(changes, keys["bias"], tensors["bias"], (sum(rows),))
        for name, part in zip(layers, torch.split(_in_diffusers_order(spelling, tensors["bias"]), rows), strict=True):
            changes.biases[name] = part


def _check_shape(changes: _Changes, key: str, tensor: torch.Tensor, wanted: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != wanted:
        raise changes.fault(
            f"{key} has the shape {list(tensor.shape)} where this transformer needs {list(wanted)}; the LoRA was made "
            "for another model"
        )


def _in_diffusers_order(spelling: str, rows: torch.Tensor) -> torch.Tensor:
    if spelling.replace("_", ".") == _HALVES_SWAPPED.replace("_", "."):
        return torch.cat(rows.chunk(2)[::-1])
    return rows


def _adapter_metadata(metadata: dict[str, str] | None) -> dict[str, Any]:
    """The settings of the training, where diffusers wrote them into the file: ``lora_alpha`` and others."""
    settings = json.loads((metadata or {}).get("lora_adapter_metadata", "{}"))
    return {name.removeprefix("transformer."): value for name, value in settings.items()}


def _metadata_alpha(metadata: dict[str, Any], layer: str, rank: int) -> float:
    """The number alpha of ``alpha / rank``; a file that does not say it means the rank, which scales by 1."""
    patterns = metadata.get("alpha_pattern") or {}
    own = (value for pattern, value in patterns.items() if re.match(rf"(.*\.)?({pattern})$", layer))
    alpha = next(own, metadata.get("lora_alpha") or rank)
    return alpha * math.sqrt(rank) if metadata.get("use_rslora") else alpha
