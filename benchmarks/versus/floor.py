"""The floor of a denoising step: its matrix products and attention calls alone, with torch's kernels.

It records one call of the transformer as torch dispatches it, then repeats each recorded product with tensors of the
same sizes, strides and precision, and nothing in between. Without fusing other work into these kernels, no
implementation can be faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import conv_flop_count

_aten = torch.ops.aten
_PRODUCTS = {_aten.addmm.default, _aten.mm.default, _aten.bmm.default, _aten.baddbmm.default}
_ATTENTION = {
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
}
_CONVOLUTION = _aten.convolution.default


@dataclass(frozen=True)
class Call:
    """One recorded call: its function, its kind, and its floating-point operations."""

    function: Any
    kind: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    flops: int


@dataclass
class Recorder(TorchDispatchMode):
    """Records the products that run inside the block, replacing activations with new tensors.

    Args:
        weights: the weights, which are not replaced, so that each product reads its own.
    """

    weights: list[torch.Tensor]
    calls: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._own = {tensor.untyped_storage().data_ptr() for tensor in self.weights}
        self._doubles: dict[tuple[Any, ...], torch.Tensor] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kind = _kind(function)
        if kind is not None:
            kept = tuple(self._keep(value) for value in args)
            options = {name: self._keep(value) for name, value in (kwargs or {}).items()}
            self.calls.append(Call(function, kind, kept, options, _flops(function, args)))
        return function(*args, **(kwargs or {}))

    def _keep(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or value.untyped_storage().data_ptr() in self._own:
            return value
        key = (value.shape, value.stride(), value.dtype)
        if key not in self._doubles:
            double = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device)
            self._doubles[key] = double.normal_() if value.is_floating_point() else double.copy_(value)
        return self._doubles[key]


@dataclass(frozen=True)
class Floor:
    """Seconds of all calls of one kind, and their operations."""

    seconds: dict[str, float]
    flops: dict[str, int]

    @property
    def total_s(self) -> float:
        return sum(self.seconds.values())

    @property
    def total_flops(self) -> int:
        return sum(self.flops.values())


@torch.no_grad()
def record(transformer: torch.nn.Module, step: Callable[[], object]) -> list[Call]:
    """The products of one step of an uncompiled transformer."""
    recorder = Recorder(weights=[*transformer.parameters()])
    with recorder:
        step()
    return recorder.calls


@torch.no_grad()
def replay(calls: list[Call]) -> Floor:
    """Repeat the calls by kind and time each kind as a whole; results are freed immediately."""
    seconds, flops = {}, {}
    for kind in sorted({call.kind for call in calls}):
        chosen = [call for call in calls if call.kind == kind]
        began = time.perf_counter()
        for call in chosen:
            call.function(*call.arguments, **call.options)
        seconds[kind] = time.perf_counter() - began
        flops[kind] = sum(call.flops for call in chosen)
    return Floor(seconds, flops)


@torch.no_grad()
def peak_flops_per_s(dtype: torch.dtype, side: int = 4096, rounds: int = 5) -> float:
    """FLOP/s of the fastest of several large square products in this precision."""
    left, right = (torch.randn(side, side).to(dtype) for _ in range(2))
    out = torch.empty(side, side, dtype=dtype)
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        torch.mm(left, right, out=out)
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best


def _kind(function: Any) -> str | None:
    if function in _PRODUCTS or function == _CONVOLUTION:
        return "products"
    return "attention" if function in _ATTENTION else None


def _flops(function: Any, args: tuple) -> int:
    """Two operations per multiply-add, as in torch's own counter."""
    if function == _CONVOLUTION:
        out = _aten.convolution.default(*(a.to("meta") if isinstance(a, torch.Tensor) else a for a in args))
        return conv_flop_count(list(args[0].shape), list(args[1].shape), list(out.shape), transposed=args[6])
    if function in _ATTENTION:
        (*batch, queries, width), keys = args[0].shape, args[1].shape[-2]
        return 4 * int(torch.tensor(batch).prod()) * queries * keys * width
    left, right = args[-2:] if function in (_aten.mm.default, _aten.bmm.default) else args[1:3]
    return 2 * left.numel() * right.shape[-1]
