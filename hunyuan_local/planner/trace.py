"""Counts the memory and work of a stage: which tensors are alive at a time, FLOPs, and bytes moved.

A stage is described as the libraries run it, line by line: when each tensor is created, and when its last reference
is gone. Knows nothing about models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# The counters of a trace.
_WORK = ("_matmul", "_attention", "_convolution", "_moved", "_exchanged")


@dataclass(frozen=True)
class Cost:
    """Memory and work of a stage.

    Attributes:
        peak_bytes: the most bytes alive at a time.
        matmul_flops, attention_flops, convolution_flops: as in ``torch.utils.flop_counter``: a multiply-add counts as
            two, everything else as zero.
        moved_bytes: bytes read and written by all other operations, which are limited by memory bandwidth.
        exchanged_bytes: bytes sent to other cards.
    """

    peak_bytes: int = 0
    matmul_flops: int = 0
    attention_flops: int = 0
    convolution_flops: int = 0
    moved_bytes: int = 0
    exchanged_bytes: int = 0

    @property
    def flops(self) -> int:
        """Total floating-point operations."""
        return self.matmul_flops + self.attention_flops + self.convolution_flops

    def then(self, other: Cost, times: int = 1) -> Cost:
        """Cost of this, followed by ``times`` times the other: work adds up, the peak is the maximum."""
        return Cost(
            max(self.peak_bytes, other.peak_bytes),
            self.matmul_flops + other.matmul_flops * times,
            self.attention_flops + other.attention_flops * times,
            self.convolution_flops + other.convolution_flops * times,
            self.moved_bytes + other.moved_bytes * times,
            self.exchanged_bytes + other.exchanged_bytes * times,
        )


class Trace:
    """Alive tensors by name. Assigning a name again frees its old tensor only after the new one is created.

    Attributes:
        at_peak: name and bytes of each tensor alive at the peak, largest first.
    """

    def __init__(self) -> None:
        self._live: dict[str, int] = {}
        self._now = 0
        self._peak = 0
        self._matmul = self._attention = self._convolution = self._moved = self._exchanged = 0
        self.at_peak: list[tuple[str, int]] = []

    def make(self, name: str, size: int, *, moves: bool = True) -> None:
        """Allocate ``size`` bytes for ``name``; with ``moves``, also count ``size`` bytes read and written."""
        if moves:
            self._moved += 2 * size
        replaced = self._live.get(name, 0)
        self._now += size
        if self._now > self._peak:
            self._peak = self._now
            live = {**self._live, f"{name} (the one before)": replaced} if replaced else dict(self._live)
            live[name] = size
            self.at_peak = sorted(live.items(), key=lambda item: -item[1])
        self._now -= replaced
        self._live[name] = size

    def copy(self, size: int) -> None:
        """Count a copy of ``size`` bytes into an existing tensor."""
        self._moved += 2 * size

    def drop(self, *names: str) -> None:
        """Free these tensors."""
        for name in names:
            self._now -= self._live.pop(name)

    def rename(self, old: str, new: str) -> None:
        """Rename a tensor; a tensor that already has the new name is freed."""
        if new in self._live:
            self.drop(new)
        self._live[new] = self._live.pop(old)

    def matmul(self, rows: int, inner: int, columns: int) -> None:
        """Count a product of [rows, inner] and [inner, columns]: ``2 * rows * inner * columns`` FLOPs."""
        self._matmul += 2 * rows * inner * columns

    def attention(self, queries: int, keys: int, width: int) -> None:
        """Count ``q k^T`` and ``scores v``, ``width`` channels in all heads: ``4 * queries * keys * width`` FLOPs."""
        self._attention += 4 * queries * keys * width

    def convolution(self, outputs: int, inner: int) -> None:
        """Count a convolution with ``outputs`` elements of ``inner`` multiply-adds each."""
        self._convolution += 2 * outputs * inner

    def repeat(self, times: int, step: Callable[[], None]) -> None:
        """Count ``times`` equal steps that leave the same tensors alive; traces only two, and multiplies."""
        for _ in range(min(times, 1)):
            step()
        if times > 1:
            before = self._work()
            step()
            one = [after - count for after, count in zip(self._work(), before, strict=True)]
            for name, count in zip(_WORK, one, strict=True):
                setattr(self, name, getattr(self, name) + count * (times - 2))

    def _work(self) -> list[int]:
        return [getattr(self, name) for name in _WORK]

    def exchange(self, size: int) -> None:
        """Count ``size`` bytes sent to other cards."""
        self._exchanged += size

    def cost(self) -> Cost:
        """The cost so far."""
        return Cost(self._peak, self._matmul, self._attention, self._convolution, self._moved, self._exchanged)
