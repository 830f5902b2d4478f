"""Runs the libraries' real classes on the ``meta`` device and counts live bytes.

Tensors on that device have sizes and lifetimes but no memory, so the 13 B model runs at full size. Three
things that its kernels do on a GPU are put in place of what the ``meta`` device would do: attention and
``rms_norm`` make their output and nothing else, and a convolution keeps channels-last copies of input and output.
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
from diffusers.models.modeling_utils import no_init_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_flop_count
from transformers import CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "hunyuan_local" / "assets" / "tiny"
LARGE = json.loads((ROOT / "configs" / "architectures" / "hunyuan-video.json").read_text())


class NewTensors:
    """Results of operations on the ``meta`` device, computed once for each kind of arguments.

    torch computes most shapes in Python, which takes far longer than making a tensor. An operation whose result shares
    memory always runs, and so does every operation on another device.
    """

    def __init__(self) -> None:
        self._results: dict[Any, list[tuple[Any, ...]]] = {}

    def of(self, function: Any, args: Any, kwargs: Any) -> Any:
        if function is torch.ops.aten.mul.Tensor and isinstance(args[1], float):
            key = (function, _kind(args[0]))  # blending multiplies by many numbers
        else:
            key = (function, _kind(args), _kind(tuple(kwargs.items())))
        if known := self._results.get(key):
            made = [torch.empty_strided(size, stride, dtype=dtype, device="meta") for size, stride, dtype in known]
            return made[0] if len(made) == 1 else tuple(made)
        result = function(*args, **kwargs)
        made = [result] if isinstance(result, torch.Tensor) else result if type(result) is tuple else None
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        if made is not None and all(_is_new(x, given) for x in made):
            self._results[key] = [(x.size(), x.stride(), x.dtype) for x in made]
        return result


def _kind(value: Any) -> Any:
    """Everything about an argument on which the shape of a result depends."""
    if isinstance(value, torch.Tensor):
        return value.shape, value.stride(), value.dtype, value.device
    if isinstance(value, list | tuple):
        return tuple(map(_kind, value))
    return type(value), value


def _is_new(value: Any, given: set[int]) -> bool:
    """Whether this is a tensor without values, with all of its memory to itself."""
    if not isinstance(value, torch.Tensor) or value.device.type != "meta":
        return False
    storage = value.untyped_storage()
    whole = torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device="meta").untyped_storage()
    return storage._cdata not in given and storage.nbytes() == whole.nbytes()


NEW_TENSORS = NewTensors()


class LiveTensors(TorchDispatchMode):
    """Counts every storage from the operation that made it until nothing refers to it.

    Also adds up torch's own formulas. ``FlopCounterMode`` has the same sums, but asks each operation for its parts.
    """

    def __init__(self, weights: Iterator[torch.Tensor]):
        super().__init__()
        self.peak_bytes = self.flops = 0
        self._now = 0
        self._sizes: dict[int, int] = {}
        self._weights = {tensor.untyped_storage()._cdata for tensor in weights}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = NEW_TENSORS.of(function, args, kwargs)
        if formula := flop_registry.get(function._overloadpacket):
            self.flops += formula(*args, **kwargs, out_val=result)
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


def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **_: Any) -> torch.Tensor:
    """What a fused kernel allocates: its output, [batch, tokens, heads, head_dim]."""
    batch, heads, tokens, width = query.shape
    return query.new_empty(batch, tokens, heads, width).permute(0, 2, 1, 3)


def rms_norm(x: torch.Tensor, *_: Any) -> torch.Tensor:
    """What the fused kernel of a GPU leaves behind; other devices run it as several operations."""
    return torch.empty_like(x)


def transformer(config: dict[str, Any], dtype: torch.dtype) -> HunyuanVideoTransformer3DModel:
    """The real transformer on the ``meta`` device."""
    with torch.device("meta"), no_init_weights():
        model = HunyuanVideoTransformer3DModel(**_arguments(config))
    return model.to(dtype).eval().requires_grad_(False)


def autoencoder(config: dict[str, Any], dtype: torch.dtype) -> AutoencoderKLHunyuanVideo:
    """The real autoencoder on the ``meta`` device."""
    with torch.device("meta"), no_init_weights():
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
    return _observed(model, call, arguments).peak_bytes


@torch.no_grad()
def counted_flops(model: torch.nn.Module, call: Any) -> int:
    """What torch's counter says of ``call()``."""
    return _observed(model, call).flops


@torch.no_grad()
def flops_and_live_peak(model: torch.nn.Module, call: Any) -> tuple[int, int]:
    """Both at the same time, with attention instead of torch's."""
    flops = 0

    def counted_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **_: Any) -> torch.Tensor:
        nonlocal flops
        flops += sdpa_flop_count(query.shape, key.shape, value.shape)
        return attention(query, key, value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted_attention)
        live = _observed(model, call)
    return flops + live.flops, live.peak_bytes


def _observed(model: torch.nn.Module, call: Any, arguments: Any = ()) -> LiveTensors:
    live = LiveTensors(iter([*model.parameters(), *model.buffers()]))
    live.count(arguments)
    with live:
        call()
    return live


def _arguments(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if not name.startswith("_")}
