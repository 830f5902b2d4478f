"""Times block-sparse attention at several densities against dense attention, with torch's ``flex_attention``.

Latents are in the order of tiles (frames, rows, columns), so that neighbours in space and time are neighbours in the
sequence; a tile attends to the tiles within a window around it, and text to everything.
"""

from __future__ import annotations

import functools
import math

import torch
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from .attention import draw, speed
from .task import Record

Grid = tuple[int, int, int]


@torch.no_grad()
def compare(
    record: Record, *, device: str, heads: int, head_dim: int, latents: Grid, tile: Grid, text: int,
    windows: list[Grid], block: int, compile: bool,
) -> None:  # fmt: skip
    """Time dense attention and each window: ``rows`` with ``kept`` (share of the blocks), milliseconds and TFLOP/s.

    Args:
        record: gets the results.
        device, heads, head_dim: of the attention.
        latents, tile: frames, rows and columns; the tile divides the latents.
        text: number of text tokens.
        windows: in latents.
        block: tokens per block of the mask.
        compile: False applies the mask to dense attention.
    """
    tokens = math.prod(latents) + text
    query, key, value = draw((1, heads, tokens, head_dim), device)
    attend = torch.compile(flex_attention, dynamic=False) if compile else flex_attention
    with record.row(window="dense", kept=1.0) as row:
        dense = functools.partial(torch.nn.functional.scaled_dot_product_attention, query, key, value)
        row |= speed(dense, tokens, heads * head_dim, device)
    for window in windows:
        with record.row(window=window) as row:
            mask, row["kept"] = window_mask(latents, tile, window, text, block, device)
            call = functools.partial(attend, query, key, value, block_mask=mask)
            row |= speed(call, tokens, heads * head_dim, device, row["kept"])


def window_mask(latents: Grid, tile: Grid, window: Grid, text: int, block: int, device: str) -> tuple[BlockMask, float]:
    """The mask of tiles within half a window of each other, and the share of blocks that it keeps.

    Blocks whose tokens all attend to each other need no mask inside; the others compare the tiles of their tokens.
    """
    size = math.prod(tile)
    near = near_tiles(latents, tile, window, text + block).to(device)  # kernels look beyond the end, in the last block
    tokens = math.prod(latents) + text
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
    size = math.prod(tile)
    whole = torch.ones(len(near) + -(-text // size), len(near) + -(-text // size), dtype=torch.bool)
    whole[: len(near), : len(near)] = near
    return whole


def _indices(keep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Number and places of the kept blocks of each row [1, 1, rows] and [1, 1, rows, blocks]."""
    order = torch.argsort(keep.int(), dim=-1, descending=True, stable=True)
    return keep.sum(-1, dtype=torch.int32)[None, None], order.int()[None, None]
