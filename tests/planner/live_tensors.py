"""Runs the libraries' real classes on the ``meta`` device and counts live bytes.

Tensors on that device have sizes and lifetimes but no memory, so the 13 B model runs at full size. Two
things that its kernels do on a GPU are put in place of what the ``meta`` device would do: attention
makes its output and nothing else, and a convolution keeps channels-last copies of input and output.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoTransformer3DModel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_flop_count
from transformers import CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "hunyuan_local" / "assets" / "tiny"
LARGE = json.loads((ROOT / "configs" / "architectures" / "hunyuan-video.json").read_text())


class LiveTensors(TorchDispatchMode):
    """Counts every storage from its creation until nothing refers to it."""

    def __init__(self, weights: Iterator[torch.Tensor]):
        super().__init__()
        self.peak_bytes = 0
        self._now = 0
        self._sizes: dict[int, int] = {}
        self._weights = {tensor.untyped_storage()._cdata for tensor in weights}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.count(result)
        workspace = 0
        if function in (torch.ops.aten.convolution.default, torch.ops.aten.mkldnn_convolution.default):
            workspace = sum(x.numel() * x.element_size() for x in (args[0], result))
        self.peak_bytes = max(self.peak_bytes, self._now + workspace)
        return result

    def count(self, tensors: Any) -> None:
        """Count these storages if they are new."""
        for tensor in (x for x in tree_leaves(tensors) if isinstance(x, torch.Tensor)):
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in self._sizes and key not in self._weights:
                self._sizes[key] = storage.nbytes()
                self._now += storage.nbytes()
                weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self._now -= self._sizes.pop(key)


class Operations(TorchDispatchMode):
    """Adds up torch's own formulas. ``FlopCounterMode`` has the same sums, but decomposes each operation."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        if formula := flop_registry.get(function._overloadpacket):
            self.total += formula(*args, **kwargs, out_val=result)
        return result


def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **_: Any) -> torch.Tensor:
    """What a fused kernel allocates: its output, [batch, tokens, heads, head_dim]."""
    batch, heads, tokens, width = query.shape
    return query.new_empty(batch, tokens, heads, width).permute(0, 2, 1, 3)


def transformer(config: dict[str, Any], dtype: torch.dtype) -> HunyuanVideoTransformer3DModel:
    """The real transformer on the ``meta`` device."""
    with torch.device("meta"):
        model = HunyuanVideoTransformer3DModel(**_arguments(config))
    return model.to(dtype).eval().requires_grad_(False)


def autoencoder(config: dict[str, Any], dtype: torch.dtype) -> AutoencoderKLHunyuanVideo:
    """The real autoencoder on the ``meta`` device."""
    with torch.device("meta"):
        model = AutoencoderKLHunyuanVideo(**_arguments(config))
    return model.to(dtype).eval().requires_grad_(False)


def component(name: str, config: dict[str, Any]) -> torch.nn.Module:
    """Any of the four components on the ``meta`` device, in float32."""
    if name == "transformer":
        return transformer(config, torch.float32)
    if name == "vae":
        return autoencoder(config, torch.float32)
    with torch.device("meta"):
        if name == "text_encoder":
            return LlamaModel(LlamaConfig.from_dict(config))
        return CLIPTextModel(CLIPTextConfig.from_dict(config))


def tiny_config(name: str) -> dict[str, Any]:
    """``config.json`` of a component of the built-in model."""
    return json.loads((TINY / name / "config.json").read_text())


def transformer_inputs(
    model: HunyuanVideoTransformer3DModel, latents: tuple[int, int, int], text_tokens: int
) -> dict[str, Any]:
    """Arguments of ``forward`` for one video."""
    config, dtype = model.config, model.dtype
    sizes = {
        "hidden_states": (1, config.in_channels, *latents),
        "encoder_hidden_states": (1, text_tokens, config.text_embed_dim),
        "encoder_attention_mask": (1, text_tokens),
        "pooled_projections": (1, config.pooled_projection_dim),
        "guidance": (1,),
    }
    inputs = {name: torch.empty(size, dtype=dtype, device="meta") for name, size in sizes.items()}
    return inputs | {"timestep": torch.empty(1, device="meta"), "return_dict": False}


@torch.no_grad()
def live_peak(model: torch.nn.Module, call: Any, arguments: Any = ()) -> int:
    """Peak bytes in addition to the weights during ``call()``, including its arguments."""
    live = LiveTensors(iter([*model.parameters(), *model.buffers()]))
    live.count(arguments)
    with live:
        call()
    return live.peak_bytes


@torch.no_grad()
def counted_flops(call: Any) -> int:
    """Operations of ``call()`` by torch's counter."""
    with Operations() as operations:
        call()
    return operations.total


def flops_and_live_peak(model: torch.nn.Module, call: Any) -> tuple[int, int]:
    """Both at the same time, with attention instead of torch's."""

    def counted_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **_: Any) -> torch.Tensor:
        operations.total += sdpa_flop_count(query.shape, key.shape, value.shape)
        return attention(query, key, value)

    with pytest.MonkeyPatch.context() as patch, Operations() as operations:
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted_attention)
        peak = live_peak(model, call)
    return operations.total, peak


def _arguments(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if not name.startswith("_")}
