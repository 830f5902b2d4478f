"""Bytes of a component's weights on the GPU and on the host, for each kind of offload.

Exact, tensor by tensor. Knows nothing about activations.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache

from .architecture import Component, Layer
from .quantization import FULL, BlockFloat4, Method

# The nn.ModuleLists directly in a component, which group offload streams block by block.
_BLOCK = re.compile(r"^(transformer_blocks|single_transformer_blocks|layers)\.\d+(?=\.)")


@dataclass(frozen=True)
class Stored:
    """Bytes of a component's stored weights.

    Attributes:
        total: all weights.
        blocks: each streamed block, in the order of execution.
        rest: weights outside the blocks.
        largest: the largest layer.
        pinned: page-locked host memory for a copy; torch's host allocator rounds tensors of up to 1 MiB up
            to a power of two (``pinned_max_cached_size_mb:1``).
        pinned_rounded: the same where it rounds all tensors up (before torch 2.13, or by the user's settings).
        scales: quantization scales that stay on the GPU under group offload.
        grown: bytes that the first step adds.
        quantizing: temporary bytes, in addition to the layer itself, while the largest layer is quantized.
    """

    total: int
    blocks: tuple[int, ...]
    rest: int
    largest: int
    pinned: int
    scales: int
    grown: int
    quantizing: int = 0
    pinned_rounded: int = 0

    def streamed_peak(self, at_once: int) -> int:
        """Peak bytes on the GPU while all blocks are streamed, ``at_once`` of them there at a time."""
        return self.streamed_beside(0, len(self.blocks), at_once)

    def streamed_beside(self, first: int, last: int, at_once: int) -> int:
        """Peak bytes on the GPU while blocks ``first`` to ``last - 1`` are streamed.

        ``rest + max over i of (block_i + ... + block_{i + at_once - 1}) + scales``: the running blocks, and the next
        one, which a stream prefetches (diffusers' ``_apply_group_offloading_block_level``, one block per group).
        """
        windows = [sum(self.blocks[i : i + at_once]) for i in range(first, last)]
        return self.rest + max(windows, default=sum(self.blocks)) + self.scales


@lru_cache(maxsize=64)
def store(component: Component, dtype: str, method: Method = FULL) -> Stored:
    """Sizes of a component's weights with this dtype and quantization method."""
    layers = tuple(component.layers())
    blocks: OrderedDict[str, int] = OrderedDict()
    total = rest = largest = pinned = rounded = scales = 0
    for layer in layers:
        tensors = method.layer_tensors(layer, dtype)
        size = sum(tensors)
        total, largest = total + size, max(largest, size)
        pinned += sum(_pinned(tensor) for tensor in tensors)
        rounded += sum(_power_of_two(tensor) for tensor in tensors)
        if match := _BLOCK.match(layer.name):
            blocks[match[0]] = blocks.get(match[0], 0) + size
        else:
            rest += size
        scales += _scales(layer, method, dtype)
    quantizing = max((layer.weight * method.quantizing_bytes for layer in layers if method.quantizes(layer)), default=0)
    return Stored(
        total, tuple(blocks.values()), rest, largest, pinned, scales, method.grown_by(layers), quantizing, rounded
    )  # fmt: skip


def _scales(layer: Layer, method: Method, dtype: str) -> int:
    """Bytes of nf4's scales; bitsandbytes keeps them in ``quant_state``, which group offload does not move."""
    if isinstance(method, BlockFloat4) and method.quantizes(layer):
        return method.layer_tensors(layer, dtype)[1]
    return 0


def _pinned(size: int) -> int:
    """Bytes of the allocated block: the next power of two up to 1 MiB, else the size itself."""
    return _power_of_two(size) if size <= 2**20 else size


def _power_of_two(size: int) -> int:
    """The next power of two (``c10::llvm::PowerOf2Ceil`` in torch's ``CachingHostAllocator.h``)."""
    return 1 << (size - 1).bit_length() if size > 1 else size
