"""Rotary position embeddings (RoPE) of the video tokens: tables computed once per run, applied in place.

For each pair of channels ``(x0, x1)``: ``(x0 cos - x1 sin, x1 cos + x0 sin)``, with one angle per token and pair.
"""

from __future__ import annotations

import torch
from diffusers import HunyuanVideoTransformer3DModel

from ..diffusers_private import KeptForward, add_hook, apply_rotary_emb

# Bytes of the float32 copy of one piece; diffusers' formula makes five such tensors. On a CPU they should fit into the
# cores' caches; on a GPU a piece should be large enough to occupy the whole device.
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


def rotate_(x: torch.Tensor, tables: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Rotate queries or keys by their positions, in place and piece by piece.

    Gives exactly the values of diffusers' ``apply_rotary_emb``. That function makes float32 copies of several
    times the size of ``x``; here they only have the size of one piece.

    Args:
        x: [B, tokens, heads, head_dim], modified.
        tables: cosines and sines, [tokens, head_dim] each.

    Raises:
        ValueError: the tables are for a different number of tokens.
    """
    cosines, sines = tables
    if len(cosines) != x.shape[1]:
        raise ValueError(f"rotary tables of {len(cosines)} tokens for {x.shape[1]}")
    for piece in _pieces(x):
        x[:, piece] = apply_rotary_emb(x[:, piece], (cosines[piece], sines[piece]), sequence_dim=1)


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
