"""Random weights at full size without a checkpoint of full size: one block of each kind on disk, repeated when loaded.

The package loads the small checkpoint like a real one, quantization included; ``repeated`` then copies the block as
often as the model has it. Speed and memory depend on the values of weights only in that they must not be zero.
"""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoTransformer3DModel
from transformers import CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel

from hunyuan_local.config import load_model_config
from hunyuan_local.pipeline.loading import loader
from hunyuan_local.planner.checkpoint import COMPONENTS
from hunyuan_local.planner.modes import DTYPES
from hunyuan_local.weights.files import MODEL_INDEX

from .task import Record

# Setting of a component's config: the list of its blocks.
_BLOCKS = {
    "num_layers": "transformer_blocks",
    "num_single_layers": "single_transformer_blocks",
    "num_hidden_layers": "layers",
}
# Components whose blocks are repeated; the others are written whole.
_REPEATED = ("transformer", "text_encoder")
_STORED = DTYPES["cuda"]  # precisions of the real checkpoint
_COPIED = ("scheduler", "tokenizer", "tokenizer_2")


def write(record: Record, *, folder: str, configs: dict[str, dict[str, Any]]) -> None:
    """Fill a folder with a checkpoint of one block of each kind; the same configs and libraries give the same numbers.

    The index, the scheduler's settings and the tokenizers are those of the built-in checkpoint, whose token ids are
    all in range. Fills ``rows`` with the parameters of each component on disk.
    """
    target, tiny = Path(folder), load_model_config("tiny").folder
    target.mkdir(parents=True)
    shutil.copy(tiny / MODEL_INDEX, target)
    for name in _COPIED:
        shutil.copytree(tiny / name, target / name)
    for name in COMPONENTS:
        with record.row(component=name) as row:
            model = on_meta(name, configs[name] | (one_block(configs[name]) if name in _REPEATED else {}))
            write_component(model, _STORED[name], target / name)
            row["parameters on disk"] = sum(parameter.numel() for parameter in model.parameters())


def one_block(config: dict[str, Any]) -> dict[str, Any]:
    """The settings for one block of each kind."""
    return {setting: 1 for setting in _BLOCKS if setting in config}


@contextlib.contextmanager
def repeated(counts: dict[str, int]) -> Iterator[None]:
    """Inside, the package's loader repeats blocks right after reading them, before it places them on devices.

    Args:
        counts: by the name of the list of blocks, such as ``transformer_blocks``.
    """
    read = loader._read

    def read_and_repeat(component: str, *args: Any, **options: Any) -> torch.nn.Module:
        return repeat_blocks(read(component, *args, **options), counts if component in _REPEATED else {})

    with mock.patch.object(loader, "_read", read_and_repeat):
        yield


def repeat_blocks(module: torch.nn.Module, counts: dict[str, int]) -> torch.nn.Module:
    """Append copies of the first block of each list until it has the given length; returns the module."""
    for name, count in counts.items():
        blocks = getattr(module, name, None)
        if blocks is None:
            continue
        blocks.extend(copy.deepcopy(blocks[0]) for _ in range(count - len(blocks)))
        if name == "layers":  # Llama's: its cache of keys and values has an entry per layer
            module.config.num_hidden_layers = count
            for index, layer in enumerate(blocks):
                layer.self_attn.layer_idx = index
    return module


def on_meta(component: str, config: dict[str, Any]) -> torch.nn.Module:
    """A component of the real class on the meta device, without memory for its weights."""
    makers = {
        "transformer": HunyuanVideoTransformer3DModel.from_config,
        "vae": AutoencoderKLHunyuanVideo.from_config,
        "text_encoder": lambda config: LlamaModel(LlamaConfig.from_dict(config)),
        "text_encoder_2": lambda config: CLIPTextModel(CLIPTextConfig.from_dict(config)),
    }
    with torch.device("meta"):
        return makers[component](config)


def write_component(model: torch.nn.Module, precision: str, folder: Path) -> None:
    """Write a component on the meta device with random weights, as its library does."""
    model = model.to(getattr(torch, precision)).to_empty(device="cpu")
    tensors = model.state_dict()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_fill, tensors, tensors.values(), range(len(tensors))))
    model.save_pretrained(folder)


def _fill(name: str, tensor: torch.Tensor, seed: int) -> None:
    """Ones for norm weights, the only one-dimensional weights; otherwise normally distributed around zero.

    The deviation is ``1 / sqrt(inputs)``, so that a layer keeps the size of its inputs: frames are not constant.
    """
    if tensor.ndim == 1 and name.endswith("weight"):
        tensor.fill_(1)
        return
    inputs = tensor[0].numel() if tensor.ndim > 1 else 2500  # a deviation of 0.02 for biases
    tensor.normal_(0, inputs**-0.5, generator=torch.Generator().manual_seed(seed))
