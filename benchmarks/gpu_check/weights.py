"""Writes a random checkpoint with the names and shapes of the real classes, keeping one shard in memory at a time.

Speed and memory do not depend on the values of the weights, as long as results stay finite.
"""

from __future__ import annotations

import functools
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoTransformer3DModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel

from hunyuan_local.config import load_model_config
from hunyuan_local.planner.checkpoint import COMPONENTS
from hunyuan_local.weights.files import MODEL_INDEX

from .checkpoint import STORED

# Keeps activations of full-size layers below 100 in every component, far from the limit of float16.
STANDARD_DEVIATION = 0.02
_COPIED = ("scheduler", "tokenizer", "tokenizer_2")


def write(task: dict[str, Any], record: dict[str, Any], save: Callable[[], None]) -> None:
    """Fill an empty folder with a checkpoint; the same configs and libraries give the same numbers.

    The index, the scheduler's settings and the tokenizers are those of the built-in checkpoint, whose token ids are
    all in range.

    Args:
        task: ``folder``, ``configs`` by component, and ``shard_bytes``, the maximum size of a file with more than
            one tensor.
        record: gets ``parameters`` by component.
        save: saves the current record.
    """
    folder, tiny = Path(task["folder"]), load_model_config("tiny").folder
    shutil.copy(tiny / MODEL_INDEX, folder)
    for name in _COPIED:
        shutil.copytree(tiny / name, folder / name)
    record["parameters"] = {}
    for name in COMPONENTS:
        model = on_meta(name, task["configs"][name])
        write_component(model, STORED[name], folder / name, task["shard_bytes"])
        record["parameters"][name] = sum(parameter.numel() for parameter in model.parameters())
        save()


def on_meta(component: str, config: dict[str, Any]) -> torch.nn.Module:
    """A component of the real class on the meta device, without memory for its weights."""
    with torch.device("meta"):
        if component == "transformer":
            return HunyuanVideoTransformer3DModel.from_config(config)
        if component == "vae":
            return AutoencoderKLHunyuanVideo.from_config(config)
        if component == "text_encoder":
            return LlamaModel(LlamaConfig.from_dict(config))
        return CLIPTextModel(CLIPTextConfig.from_dict(config))


def draw(shapes: dict[str, torch.Size], dtype: torch.dtype, first_seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tensors of these shapes, each with a separate seed, so that they can be drawn in parallel."""
    seeds = range(first_seed, first_seed + len(shapes))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        drawn = pool.map(functools.partial(_draw_one, dtype), shapes.keys(), shapes.values(), seeds)
        return dict(zip(shapes, drawn, strict=True))


def _draw_one(dtype: torch.dtype, name: str, shape: torch.Size, seed: int) -> torch.Tensor:
    """Ones for norm weights, the only one-dimensional weights; otherwise normally distributed around zero."""
    if len(shape) == 1 and name.endswith("weight"):
        return torch.ones(shape, dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    return torch.empty(shape, dtype=dtype).normal_(0, STANDARD_DEVIATION, generator=generator)


def write_component(model: torch.nn.Module, precision: str, folder: Path, shard_bytes: int) -> None:
    """Write config and weights to files with the names that the component's library uses."""
    if isinstance(model, HunyuanVideoTransformer3DModel | AutoencoderKLHunyuanVideo):
        model.save_config(folder)
        stem = "diffusion_pytorch_model"
    else:
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(folder)
        stem = "model"
    dtype = getattr(torch, precision)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    shards = list(_shards(shapes, dtype, shard_bytes))
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"{stem}.safetensors" if len(shards) == 1 else f"{stem}-{number:05}-of-{len(shards):05}.safetensors"
        save_file(draw(shard, dtype, first_seed=len(weight_map)), folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
    if len(shards) > 1:
        total = sum(_bytes(shape, dtype) for shape in shapes.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def _shards(shapes: dict[str, torch.Size], dtype: torch.dtype, shard_bytes: int) -> Iterator[dict[str, torch.Size]]:
    """The tensors of each file in order."""
    shard: dict[str, torch.Size] = {}
    size = 0
    for name, shape in shapes.items():
        if shard and size + _bytes(shape, dtype) > shard_bytes:
            yield shard
            shard, size = {}, 0
        shard[name] = shape
        size += _bytes(shape, dtype)
    yield shard


def _bytes(shape: torch.Size, dtype: torch.dtype) -> int:
    return math.prod(shape) * dtype.itemsize
