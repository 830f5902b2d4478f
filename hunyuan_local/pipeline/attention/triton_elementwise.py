"""``Elementwise`` with Triton kernels: each function reads and writes its tensors once.

Off by default (``kernels: triton`` in a profile), because nobody has measured it on a GPU. Tested with Triton's
interpreter on a CPU.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from typing import Any

import torch

from ...errors import first_line
from .elementwise import Eager, is_plain

_VALUES_A_PROGRAM = 2048  # of norm_rotate
# The probe's values reach about 10, where the last bit is 0.06 in bfloat16 and 1e-6 in float32.
_TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 0.25}


class Fused:
    """The kernels of ``triton_kernels``; for ``Elementwise``. Queries and keys without a plain norm run in torch.

    Raises:
        ImportError: Triton is not installed.
    """

    def __init__(self) -> None:
        self._kernels: Any = importlib.import_module(".triton_kernels", __package__)

    def __deepcopy__(self, memo: dict[int, object]) -> Fused:
        return Fused()  # modules cannot be copied

    def norm_rotate(
        self, norm: torch.nn.Module | None, x: torch.Tensor, table: torch.Tensor | None, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """See ``Elementwise``."""
        if norm is None or not is_plain(norm, x):
            return Eager().norm_rotate(norm, x, table, out)
        out = x if out is None else out
        batch, tokens, heads, channels = x.shape
        rows, block = batch * tokens * heads, max(1, _VALUES_A_PROGRAM // channels)
        if table is not None and len(table) > tokens:
            raise ValueError(f"rotary tables of {len(table)} tokens for {tokens}")
        weight: Any = norm.weight
        with _on_device(x):
            self._kernels.norm_rotate[(-(-rows // block),)](
                x, out, weight, weight if table is None else torch.view_as_real(table), rows, tokens, heads,
                0 if table is None else len(table), norm.eps, *x.stride()[:3], *out.stride()[:3],
                CHANNELS=channels, BLOCK=block,
            )  # fmt: skip
        return out

    def modulate(
        self, norm: torch.nn.Module, x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, out: torch.Tensor
    ) -> torch.Tensor:
        """See ``Elementwise``."""
        self._run(x, norm=norm, scale=scale, shift=shift, out=out)
        return out

    def add_gated(self, x: torch.Tensor, y: torch.Tensor, gate: torch.Tensor, out: torch.Tensor) -> None:
        """See ``Elementwise``."""
        self._run(x, y=y, gate=gate, added=out)

    def add_gated_and_modulate(
        self, x: torch.Tensor, y: torch.Tensor, gate: torch.Tensor, norm: torch.nn.Module,
        scale: torch.Tensor, shift: torch.Tensor, out: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        """See ``Elementwise``."""
        found = y.new_empty(y.shape)
        self._run(x, y=y, gate=gate, added=out, norm=norm, scale=scale, shift=shift, out=found)
        return found

    def _run(self, x: torch.Tensor, norm: Any = None, **tensors: torch.Tensor) -> None:
        """Run ``gate_norm_modulate``; its arguments that are not given are not used, and ``x`` takes their place."""
        y, added, out = (tensors.get(name, x) for name in ("y", "added", "out"))
        vectors = [tensors.get(name) for name in ("gate", "scale", "shift")]
        # The vectors [B, 1, channels] are slices of one tensor, except ``1 + scale``.
        given = [x if vector is None else vector.contiguous() for vector in vectors]
        batch, tokens, channels = x.shape
        x, y = (tensor if tensor.stride(2) == 1 else tensor.contiguous() for tensor in (x, y))
        with _on_device(x):
            self._kernels.gate_norm_modulate[(batch * tokens,)](
                x, y, *given, added, out, tokens, channels, 0.0 if norm is None else norm.eps, *x.stride()[:2],
                *y.stride()[:2], *added.stride()[:2], *out.stride()[:2], channels,
                ADDS="y" in tensors, NORMS=norm is not None, BLOCK=1 << (channels - 1).bit_length(),
            )  # fmt: skip


def _on_device(x: torch.Tensor) -> contextlib.AbstractContextManager[Any]:
    """Triton starts kernels on the current device."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


@torch.no_grad()
def find_fused_problem(device: str, dtype: torch.dtype, head_dim: int, width: int) -> str | None:
    """Why the kernels cannot be used on this device, in one line; None if small calls give the values of ``Eager``.

    Args:
        device: ``cpu`` (only with Triton's interpreter) or ``cuda``.
        dtype: of the transformer.
        head_dim: channels of a head.
        width: channels of a token.
    """
    if head_dim & (head_dim - 1):
        return f"heads of {head_dim} channels; Triton needs a power of 2"
    try:
        fused = Fused()
        distance = max(_distances(fused, functools.partial(_draw, device=device, dtype=dtype), head_dim, width))
    except Exception as error:  # a missing compiler or driver raises many different errors
        return first_line(error) or type(error).__name__
    return None if distance <= _TOLERANCES[dtype] else f"wrong values, off by {distance:.3g}"


def _draw(*shape: int, device: str, dtype: torch.dtype) -> torch.Tensor:
    """Random numbers, drawn on the CPU so that the device's generator keeps its state."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape))).to(device, dtype)


def _distances(fused: Fused, draw: Any, head_dim: int, width: int) -> list[float]:
    """Largest differences from ``Eager``: of normalized and rotated keys, of the sum, and of the modulated sum."""
    from ..diffusers_private import RMSNorm

    keys, x, y = draw(1, 5, 2, head_dim), draw(1, 5, width), draw(1, 5, width) + 1
    vectors = [draw(1, 1, width) * step for step in (0.5, 0.25, 1.0)]
    norm = RMSNorm(head_dim, 1e-6).to(keys.device, keys.dtype).requires_grad_(False)
    angles = torch.arange(3 * head_dim // 2, device=keys.device).view(3, -1) * 0.1
    layer_norm = torch.nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
    found = []
    for way in (fused, Eager()):
        out = torch.empty_like(x)
        turned = way.norm_rotate(norm, keys.clone(), torch.polar(torch.ones_like(angles), angles))
        gate, scale, shift = vectors
        modulated = way.add_gated_and_modulate(x.clone(), y.clone(), gate, layer_norm, scale, shift, out)
        found.append((turned, out, modulated))
    return [(a.float() - b.float()).abs().max().item() for a, b in zip(*found, strict=True)]
