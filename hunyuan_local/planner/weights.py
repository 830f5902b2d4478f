"""Where the weights are: how much of a component is on the GPU and on the host under each kind of offload.

Sizes are exact, tensor by tensor. Knows nothing about activations.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache

from .architecture import Component, Layer
from .quantization import FULL, BlockFloat4, Method

# The nn.ModuleLists right under a component, which group offload streams block by block.
_BLOCK = re.compile(r"^(transformer_blocks|single_transformer_blocks|layers)\.\d+(?=\.)")


@dataclass(frozen=True)
class Stored:
    """A component's weights as they are stored.

    Attributes:
        total: bytes of all.
        blocks: bytes of each streamed block, in the order of execution.
        rest: bytes outside the blocks.
        largest: bytes of the largest layer.
        pinned: bytes of page-locked host memory for a copy: torch's host allocator rounds each tensor of up to
            1 MiB, as it is set here, up to a power of two.
        scales: bytes that stay on the GPU under group offload.
        grown: bytes that the first step adds.
        quantizing: bytes beside the largest layer while it is quantised.
    """

    total: int
    blocks: tuple[int, ...]
    rest: int
    largest: int
    pinned: int
    scales: int
    grown: int
    quantizing: int = 0

    @property
    def streamed_peak(self) -> int:
        """Bytes on the GPU while the blocks are streamed."""
        return self.streamed_beside(0, len(self.blocks))

    def streamed_beside(self, first: int, last: int) -> int:
        """Bytes on the GPU while the blocks from ``first`` up to ``last`` run, one after the other.

        The block that runs, the next one, which a stream fetches meanwhile, and all outside the
        blocks (diffusers' ``_apply_group_offloading_block_level``, one block a group).
        """
        pairs = [sum(self.blocks[i : i + 2]) for i in range(first, last)]
        return self.rest + max(pairs, default=sum(self.blocks)) + self.scales


@lru_cache(maxsize=64)
def store(component: Component, dtype: str, method: Method = FULL) -> Stored:
    """The weights of a component in this precision."""
    layers = tuple(component.layers())
    blocks: OrderedDict[str, int] = OrderedDict()
    total = rest = largest = pinned = scales = 0
    for layer in layers:
        tensors = method.layer_tensors(layer, dtype)
        size = sum(tensors)
        total, largest = total + size, max(largest, size)
        pinned += sum(_pinned(tensor) for tensor in tensors)
        if match := _BLOCK.match(layer.name):
            blocks[match[0]] = blocks.get(match[0], 0) + size
        else:
            rest += size
        scales += _scales(layer, method, dtype)
    quantizing = max((layer.weight * method.quantizing_bytes for layer in layers if method.quantizes(layer)), default=0)
    return Stored(
        total, tuple(blocks.values()), rest, largest, pinned, scales, method.grown_by(layers), quantizing
    )  # fmt: skip


def _scales(layer: Layer, method: Method, dtype: str) -> int:
    """bitsandbytes keeps nf4's scales in ``quant_state``, which group offload does not know of."""
    if isinstance(method, BlockFloat4) and method.quantizes(layer):
        return method.layer_tensors(layer, dtype)[1]
    return 0


def _pinned(size: int) -> int:
    """Bytes of the block that the allocator takes (``pinned_max_round_threshold_mb:1``)."""
    return 1 << (size - 1).bit_length() if 1 < size <= 2**20 else size
