"""Counts the bytes that a block's elementwise operations read and write, on the ``meta`` device.

A product and an attention call are not counted: their kernels are limited by arithmetic. Views move nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from live_tensors import attention
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_aten = torch.ops.aten
_NOT_COUNTED = (_aten.addmm, _aten.mm, _aten.empty, _aten.new_empty, _aten.empty_like)
_LIBRARY = torch.library.Library("traffic", "DEF")
_LIBRARY.define("rms_norm(Tensor x) -> Tensor")
_LIBRARY.impl("rms_norm", torch.empty_like, "Meta")


class Traffic(TorchDispatchMode):
    """Adds up the tensors that each operation is given and returns, except the old value of what a copy overwrites."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        if function.is_view or function._overloadpacket in _NOT_COUNTED:
            return result
        read = args[1:] if function is _aten.copy_.default else args
        found = (x for x in tree_leaves((read, result)) if isinstance(x, torch.Tensor))
        self.bytes += sum(x.numel() * x.element_size() for x in found)
        return result


class OnePass:
    """``Elementwise`` by the definition of the Triton kernels: each reads its inputs and writes its outputs once."""

    def __init__(self) -> None:
        self.bytes = 0

    def norm_rotate(self, norm: Any, x: torch.Tensor, table: Any, out: torch.Tensor | None = None) -> torch.Tensor:
        out = x if out is None else out
        self._count(x, out, *([] if table is None else [table]))
        return out

    def modulate(self, norm: Any, x: torch.Tensor, scale: Any, shift: Any, out: torch.Tensor) -> torch.Tensor:
        self._count(x, out)
        return out

    def add_gated(self, x: torch.Tensor, y: torch.Tensor, gate: Any, out: torch.Tensor) -> None:
        self._count(x, y, out)

    def add_gated_and_modulate(
        self, x: torch.Tensor, y: torch.Tensor, gate: Any, norm: Any, scale: Any, shift: Any, out: torch.Tensor
    ) -> torch.Tensor:
        found = torch.empty_like(y)
        self._count(x, y, out, found)
        return found

    def _count(self, *tensors: torch.Tensor) -> None:
        self.bytes += sum(x.numel() * x.element_size() for x in tensors)


@torch.no_grad()
def bytes_moved(call: Callable[[], object]) -> int:
    """Bytes that a call reads and writes.

    ``rms_norm`` is one fused kernel, as on a GPU; on other devices torch runs it as several operations.
    """
    with pytest.MonkeyPatch.context() as patch, Traffic() as traffic:
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
        patch.setattr(torch.nn.functional, "rms_norm", lambda x, *_: torch.ops.traffic.rms_norm(x))
        call()
    return traffic.bytes


def moved_by_block(block: torch.nn.Module, tokens: tuple[int, int]) -> int:
    """Bytes that a block reads and writes in bfloat16 for this many tokens of the video and its text."""
    width = block.attn.to_q.in_features
    streams = [torch.empty(1, count, width, dtype=torch.bfloat16, device="meta") for count in tokens]
    temb = torch.empty(1, width, dtype=torch.bfloat16, device="meta")
    tables = tuple(torch.empty(tokens[0], width // block.attn.heads, device="meta") for _ in range(2))
    return bytes_moved(lambda: block(*streams, temb, None, tables))
