"""Rotary position embeddings of the video's tokens: tables made once a run, queries and keys turned in place."""

from __future__ import annotations

import torch
from diffusers import HunyuanVideoTransformer3DModel

from ..diffusers_private import KeptForward, add_hook, apply_rotary_emb

# The float32 copy of a piece, of which the library's formula makes five. On a CPU they should stay in the cache of
# its cores; on a GPU a piece should keep all of it busy.
_PIECE_BYTES_A_CORE = 2**18
_PIECE_BYTES_ON_GPU = 2**26


def keep_rotary_tables(transformer: HunyuanVideoTransformer3DModel) -> None:
    """Compute the rotary tables once a run rather than at each step.

    They depend on the size of the video alone. Costs 1 KiB of the device's memory per latent token
    until the pipeline frees its hooks. Nothing else is worth keeping: the text refiner depends on the
    timestep, and what does not (its input layer, the pooled text, the guidance) is less than a
    millionth of a step of the 13 B model at 1280x720x129.
    """
    add_hook(transformer.rope, _KeptTables(), "kept_rotary_tables")


def rotate_(x: torch.Tensor, tables: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Turn queries or keys by their positions, in place, as the library's ``apply_rotary_emb`` does in one piece.

    Each element has the very same value; its tensors in float32, which would take several times the memory
    of ``x``, are those of a piece.

    Args:
        x: [B, tokens, heads, head_dim], changed.
        tables: cosines and sines, [tokens, head_dim] each.

    Raises:
        ValueError: the tables are of another number of tokens.
    """
    cosines, sines = tables
    if len(cosines) != x.shape[1]:
        raise ValueError(f"rotary tables of {len(cosines)} tokens for {x.shape[1]}")
    for piece in _pieces(x):
        x[:, piece] = apply_rotary_emb(x[:, piece], (cosines[piece], sines[piece]), sequence_dim=1)


def _pieces(x: torch.Tensor) -> list[slice]:
    """Parts of the tokens that are turned at once."""
    wanted = _PIECE_BYTES_A_CORE * torch.get_num_threads() if x.device.type == "cpu" else _PIECE_BYTES_ON_GPU
    length = max(1, wanted // (4 * x[:, :1].numel()))
    return [slice(start, start + length) for start in range(0, x.shape[1], length)]


class _KeptTables(KeptForward):
    """Keeps the tables of the last size; ``maybe_free_model_hooks`` of the pipeline resets it with the caches."""

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
