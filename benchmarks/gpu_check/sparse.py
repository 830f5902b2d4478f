"""Times block-sparse attention at several densities against dense attention, with torch's ``flex_attention``.

Latents are in the order of tiles (frames, rows, columns), so that neighbours in space and time are neighbours in the
sequence; a tile attends to the tiles within a window around it, and text to everything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from .timing import median_seconds, row_of

Grid = tuple[int, int, int]


def compare(task: dict[str, Any], record: dict[str, Any], save: Callable[[], None]) -> None:
    """Time dense attention and each window; fill ``record``.

    Args:
        task: ``device``, ``heads``, ``head_dim``, ``latents`` and ``tile`` (frames, rows, columns; the tile divides the
            latents), ``text`` (tokens), ``windows`` (in latents), ``block`` (tokens per block of the mask), and
            ``compile``, without which the mask is applied to dense attention.
        record: gets ``rows``, each with ``window``, ``kept`` (share of the blocks), ``milliseconds`` and ``tflops`` (of
            the blocks that are kept), or ``error``.
        save: saves the current record.
    """
    device, heads, head_dim = task["device"], task["heads"], task["head_dim"]
    latents, tile = tuple(task["latents"]), tuple(task["tile"])
    tokens = latents[0] * latents[1] * latents[2] + task["text"]
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    query, key, value = (torch.randn(1, heads, tokens, head_dim, device=device, dtype=dtype) for _ in range(3))
    attend = torch.compile(flex_attention, dynamic=False) if task["compile"] else flex_attention

    def add(window: object, kept: float, call: Callable[[], object]) -> None:
        with row_of(record, save, window=window, kept=kept) as row:
            seconds = median_seconds(call, device)
            row |= {"milliseconds": seconds * 1e3, "tflops": 4 * tokens**2 * heads * head_dim * kept / seconds / 1e12}

    with torch.no_grad():
        add("dense", 1.0, lambda: torch.nn.functional.scaled_dot_product_attention(query, key, value))
        for window in task["windows"]:
            mask, kept = window_mask(latents, tile, tuple(window), task["text"], task["block"], device)
            add(tuple(window), kept, lambda mask=mask: attend(query, key, value, block_mask=mask))


def window_mask(latents: Grid, tile: Grid, window: Grid, text: int, block: int, device: str) -> tuple[BlockMask, float]:
    """The mask of tiles within half a window of each other, and the share of blocks that it keeps.

    Blocks whose tokens all attend to each other need no mask inside; the others compare the tiles of their tokens.
    """
    size = tile[0] * tile[1] * tile[2]
    near = near_tiles(latents, tile, window, text + block).to(device)  # kernels look beyond the end, in the last block
    tokens = latents[0] * latents[1] * latents[2] + text
    blocks = -(-tokens // block)
    first = torch.arange(blocks) * block
    tiles = torch.arange(len(near))
    inside = (tiles * size < (first + block).clamp(max=tokens)[:, None]) & ((tiles + 1) * size > first[:, None])
    member = inside.float().to(device)
    some = member @ near.float() @ member.T > 0
    all_ = member @ (~near).float() @ member.T == 0
    if tokens % block:  # the last block has positions beyond the end
        all_[-1], all_[:, -1] = False, False
    mask = BlockMask.from_kv_blocks(
        *_indices(some & ~all_), *_indices(some & all_), BLOCK_SIZE=(block, block),
        mask_mod=lambda b, h, q, k: near[q // size, k // size], seq_lengths=(tokens, tokens),
    )  # fmt: skip
    return mask, some.float().mean().item()


def near_tiles(latents: Grid, tile: Grid, window: Grid, text: int) -> torch.Tensor:
    """Whether two tiles attend to each other [tiles, tiles]; the text counts as further tiles after the video's."""
    counts = [whole // part for whole, part in zip(latents, tile, strict=True)]
    near = torch.ones(1, 1, dtype=torch.bool)
    for count, part, wide in zip(counts, tile, window, strict=True):
        place = torch.arange(count) * part
        near = torch.kron(near, (place[:, None] - place).abs() * 2 <= wide)
    size = tile[0] * tile[1] * tile[2]
    whole = torch.ones(len(near) + -(-text // size), len(near) + -(-text // size), dtype=torch.bool)
    whole[: len(near), : len(near)] = near
    return whole


def _indices(keep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Number and places of the kept blocks of each row [1, 1, rows] and [1, 1, rows, blocks]."""
    order = torch.argsort(keep.int(), dim=-1, descending=True, stable=True)
    return keep.sum(-1, dtype=torch.int32)[None, None], order.int()[None, None]
