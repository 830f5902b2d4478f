"""The exchanges of Ulysses: from all heads of some tokens to all tokens of some heads, and back.

Each of P processes holds some of the N tokens, and computes attention for ``ceil(heads / P)`` heads; the last one, for
the rest. Queries, keys and values travel together, so that a layer takes two exchanges. How many tokens each process
has follows from the size of the video and the length of the text, so no process asks the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist

from ..process_group import ProcessGroup


def part_lengths(tokens: int, parts: int) -> list[int]:
    """Lengths of the parts of ``torch.tensor_split``, by which diffusers splits: the first ones have one token more."""
    each, more = divmod(tokens, parts)
    return [each + (rank < more) for rank in range(parts)]


def own_heads(heads: int, process_group: ProcessGroup) -> int:
    """Number of heads that this process computes."""
    most = _most_heads(heads, process_group)
    return max(0, min(most, heads - process_group.rank * most))


def to_heads(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int], process_group: ProcessGroup
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Exchange this process's tokens of all heads for all tokens of this process's heads.

    Args:
        query, key, value: [1, lengths[rank], heads, head_dim].
        lengths: number of tokens of each process.
        process_group: all ranks must call this at the same time.

    Returns:
        Queries, keys and values [1, N, own heads, head_dim], the tokens in the order of the ranks; views of one tensor.
    """
    size, (tokens, heads, head_dim) = process_group.size, query.shape[1:]
    most = _most_heads(heads, process_group)
    sent = query.new_empty(size, tokens, 3, most, head_dim)
    for place, given in enumerate((query, key, value)):
        sent[:, :, place] = _padded(given[0], size * most).view(tokens, size, most, head_dim).transpose(0, 1)
    received = query.new_empty(sum(lengths), 3, most, head_dim)
    dist.all_to_all_single(received, sent.flatten(0, 1), list(lengths), [tokens] * size, group=process_group.group)
    own = own_heads(heads, process_group)
    found = received[None, :, :, :own]
    return found[:, :, 0], found[:, :, 1], found[:, :, 2]


def to_tokens(found: torch.Tensor, heads: int, lengths: Sequence[int], process_group: ProcessGroup) -> torch.Tensor:
    """Exchange all tokens of this process's heads for this process's tokens of all heads: reverses :func:`to_heads`.

    Args:
        found: output of the attention, [1, N, own heads, head_dim].
        heads: number of heads of the layer.
        lengths, process_group: as for :func:`to_heads`.

    Returns:
        [1, lengths[rank], heads, head_dim].
    """
    size, tokens = process_group.size, lengths[process_group.rank]
    sent = _padded(found[0], _most_heads(heads, process_group)).contiguous()
    received = sent.new_empty(size * tokens, *sent.shape[1:])
    dist.all_to_all_single(received, sent, [tokens] * size, list(lengths), group=process_group.group)
    parts = received.view(size, tokens, *received.shape[1:])
    return parts.transpose(0, 1).flatten(1, 2)[None, :, :heads]


def _most_heads(heads: int, process_group: ProcessGroup) -> int:
    return -(-heads // process_group.size)


def _padded(x: torch.Tensor, heads: int) -> torch.Tensor:
    """Add heads of zeros to [tokens, heads, head_dim]; nobody reads them."""
    return x if x.shape[1] == heads else torch.nn.functional.pad(x, (0, 0, 0, heads - x.shape[1]))
