"""The elementwise work of the transformer's blocks, in torch's operations: diffusers' values with fewer passes.

A pass over a tensor of all tokens takes the time of its bytes, so each function here reads and writes as few tensors as
torch's operations allow. ``triton_elementwise`` has the same functions with one pass each.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch

from ..diffusers_private import RMSNorm
from .rotary import rotate_


class Elementwise(Protocol):
    """What the blocks need; all tensors have the shape [B, tokens, ...] and the same dtype."""

    def norm_rotate(
        self, norm: torch.nn.Module | None, x: torch.Tensor, table: torch.Tensor | None, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Normalize queries or keys [B, tokens, heads, head_dim], then rotate the first ``len(table)`` tokens.

        Args:
            norm: the ``RMSNorm`` of the head's channels; None for none.
            x: the projection's output; it may be modified.
            table: from ``ComplexTables``; None for text tokens, which have no position.
            out: where to write; a new tensor or ``x`` if None.
        """
        ...

    def modulate(
        self, norm: torch.nn.Module, x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, out: torch.Tensor
    ) -> torch.Tensor:
        """``out = norm(x) * scale + shift``, ``norm`` a LayerNorm without weights; returns ``out``."""
        ...

    def add_gated(self, x: torch.Tensor, y: torch.Tensor, gate: torch.Tensor, out: torch.Tensor) -> None:
        """``out = x + y * gate``; ``y`` may be modified, and ``out`` may be ``x``."""
        ...

    def add_gated_and_modulate(
        self, x: torch.Tensor, y: torch.Tensor, gate: torch.Tensor, norm: torch.nn.Module,
        scale: torch.Tensor, shift: torch.Tensor, out: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        """``out = x + y * gate``; returns ``norm(out) * scale + shift`` in a new tensor."""
        ...


class Eager:
    """torch's operations, rounding where diffusers rounds; for ``Elementwise``."""

    def norm_rotate(
        self, norm: torch.nn.Module | None, x: torch.Tensor, table: torch.Tensor | None, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """See ``Elementwise``."""
        found = normalize(norm, x, out)
        if table is not None:
            rotate_(found[:, : len(table)], table)
        return found

    def modulate(
        self, norm: torch.nn.Module, x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, out: torch.Tensor
    ) -> torch.Tensor:
        """See ``Elementwise``."""
        return torch.add(norm(x).mul_(scale), shift, out=out)

    def add_gated(self, x: torch.Tensor, y: torch.Tensor, gate: torch.Tensor, out: torch.Tensor) -> None:
        """See ``Elementwise``."""
        torch.add(x, y.mul_(gate), out=out)

    def add_gated_and_modulate(
        self, x: torch.Tensor, y: torch.Tensor, gate: torch.Tensor, norm: torch.nn.Module,
        scale: torch.Tensor, shift: torch.Tensor, out: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        """See ``Elementwise``."""
        self.add_gated(x, y, gate, out)
        normed = norm(out)
        return self.modulate(torch.nn.Identity(), normed, scale, shift, normed)


def normalize(norm: torch.nn.Module | None, x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """diffusers' ``RMSNorm`` as ``F.rms_norm(x) * weight``: two passes instead of eight, on a CPU to the last bit.

    The product with the weight is separate, because diffusers rounds before it. A layer with hooks or with a weight
    of another precision is called as it is.

    Args:
        norm: the layer; None for none.
        x: [..., channels].
        out: where to write; None for a new tensor, or ``x`` itself without a layer.
    """
    if norm is not None and is_plain(norm, x):
        layer: Any = norm
        normed = torch.nn.functional.rms_norm(x, tuple(layer.dim), None, layer.eps)
        return torch.mul(normed, layer.weight, out=normed if out is None else out)
    found: torch.Tensor = x if norm is None else norm(x)
    return found if out is None else out.copy_(found)


def is_plain(norm: torch.nn.Module, x: torch.Tensor) -> bool:
    """Whether a layer is an ``RMSNorm`` without hooks, its weight in the precision of ``x``, and without a bias."""
    if type(norm) is not RMSNorm or "forward" in vars(norm) or norm.bias is not None:
        return False
    weight: torch.Tensor | None = norm.weight
    return weight is not None and weight.dtype == x.dtype
