"""Rotary position embeddings (RoPE) of the video tokens: tables computed once per run, applied in place.

For each pair of channels ``(x0, x1)``: ``(x0 cos - x1 sin, x1 cos + x0 sin)``, with one angle per token and pair. This
is the complex product ``(x0 + i x1) (cos + i sin)``.
"""

from __future__ import annotations

import weakref

import torch
from diffusers import HunyuanVideoTransformer3DModel

from ..diffusers_private import KeptForward, add_hook

# Bytes of the float32 copy of one piece of a tensor in half precision. On a CPU it should fit into the cores' caches;
# on a GPU a piece should be large enough to occupy the whole device.
_PIECE_BYTES_A_CORE = 2**18
_PIECE_BYTES_ON_GPU = 2**26


def keep_rotary_tables(transformer: HunyuanVideoTransformer3DModel) -> None:
    """Compute the rotary tables once per run instead of at each step.

    They depend only on the size of the video. They cost 1 KiB of device memory per token (cosine and sine, 128
    float32 each) until the pipeline frees its hooks. Nothing else is worth keeping: the text refiner depends on
    the timestep, and the rest (its input layer, the pooled text, the guidance) is less than a millionth of a
    step of the 13 B model at 1280x720x129.
    """
    add_hook(transformer.rope, _KeptTables(), "kept_rotary_tables")


class ComplexTables:
    """The complex form of diffusers' tables, kept as long as those are alive: 0.5 KiB per token with 128 channels."""

    def __init__(self) -> None:
        self._of: weakref.ref[torch.Tensor] | None = None
        self._table: torch.Tensor | None = None

    def __deepcopy__(self, memo: dict[int, object]) -> ComplexTables:
        return ComplexTables()  # the copy computes its own

    def of(self, tables: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """``cos + i sin`` [tokens, head_dim / 2] of cosines and sines [tokens, head_dim], equal for both of a pair."""
        cosines, sines = tables
        if self._table is None or self._of is None or self._of() is not cosines:
            self._of = weakref.ref(cosines, self._forget)
            self._table = torch.complex(cosines[:, ::2].contiguous(), sines[:, ::2].contiguous())
        return self._table

    def _forget(self, dead: weakref.ref[torch.Tensor]) -> None:
        if dead is self._of:
            self._of = self._table = None


def rotate_(x: torch.Tensor, table: torch.Tensor) -> None:
    """Rotate queries or keys by their positions, in place; in half precision piece by piece, in float32.

    Gives the values of diffusers' ``apply_rotary_emb``, on a CPU to the last bit. That function makes float32 copies of
    several times the size of ``x``; here there is at most one, of the size of one piece.

    Args:
        x: [B, tokens, heads, head_dim], modified.
        table: from ``ComplexTables``, [tokens, head_dim / 2].

    Raises:
        ValueError: the table is for a different number of tokens.
    """
    if len(table) != x.shape[1]:
        raise ValueError(f"rotary tables of {len(table)} tokens for {x.shape[1]}")
    if x.dtype == torch.float32:
        _as_complex(x).mul_(table[:, None])
        return
    for piece in _pieces(x):
        single = x[:, piece].float()
        _as_complex(single).mul_(table[piece, None])
        x[:, piece] = single


def _as_complex(x: torch.Tensor) -> torch.Tensor:
    """A view of float32 channels in pairs."""
    return torch.view_as_complex(x.view(*x.shape[:-1], -1, 2))


def _pieces(x: torch.Tensor) -> list[slice]:
    """Ranges of tokens to rotate together; n tokens take ``4 * B * n * heads * head_dim`` bytes in float32."""
    wanted = _PIECE_BYTES_A_CORE * torch.get_num_threads() if x.device.type == "cpu" else _PIECE_BYTES_ON_GPU
    length = max(1, wanted // (4 * x[:, :1].numel()))
    return [slice(start, start + length) for start in range(0, x.shape[1], length)]


class _KeptTables(KeptForward):
    """Keeps the tables of the last size; the pipeline's ``maybe_free_model_hooks`` clears them with the caches."""

    def __init__(self) -> None:
        super().__init__()
        self._of: tuple[torch.Size, torch.device] | None = None
        self._tables: tuple[torch.Tensor, torch.Tensor] | None = None

    def new_forward(self, module: torch.nn.Module, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        wanted = (hidden_states.shape[2:], hidden_states.device)
        if self._tables is None or self._of != wanted:
            self._of, self._tables = wanted, self.original_forward(hidden_states)
        return self._tables

    def reset_state(self, module: torch.nn.Module) -> torch.nn.Module:
        self._of = self._tables = None
        return module
