"""Times the attention kernels that work here at the lengths of real videos, and diffusers' masked attention."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import torch

from hunyuan_local.config.kernels import EXACT, INEXACT
from hunyuan_local.pipeline.attention.kernel_choice import find_problem
from hunyuan_local.pipeline.attention.kernels import attend

from .task import Record
from .timing import dtype_on, median_seconds

MASKED = "native, masked"
# Number of padding tokens that a short prompt leaves of the text's 256.
_PADDING = 200


@torch.no_grad()
def compare(record: Record, *, device: str, tokens: list[int], heads: int, head_dim: int) -> None:
    """Time every kernel at every length.

    Fills ``problems``, why a kernel is unavailable, by kernel; and ``rows``, with ``milliseconds`` and ``tflops``.
    """
    problems = {name: find_problem(name, device, dtype_on(device), head_dim) for name in (*EXACT, *INEXACT)}
    working = [name for name, problem in problems.items() if problem is None]
    record |= {"heads": heads, "head_dim": head_dim}
    record |= {"problems": {name: problem for name, problem in problems.items() if problem is not None}, "rows": []}
    for length, kernel in itertools.product(tokens, (*working, MASKED)):
        with record.row(tokens=length, kernel=kernel) as row:
            shape, mask = (1, length, heads, head_dim), None
            if kernel == MASKED:  # [1, 1, 1, tokens], as in HunyuanVideoTransformer3DModel.forward
                mask = torch.ones(1, 1, 1, length, device=device, dtype=torch.bool)
                mask[..., -_PADDING:] = False
            name = "native" if kernel == MASKED else kernel
            row |= speed(functools.partial(attend, name, *draw(shape, device), mask), length, heads * head_dim, device)


def draw(shape: tuple[int, ...], device: str) -> list[torch.Tensor]:
    """Random queries, keys and values."""
    return [torch.randn(shape, device=device, dtype=dtype_on(device)) for _ in range(3)]


def speed(call: Callable[[], object], tokens: int, channels: int, device: str, kept: float = 1.0) -> dict[str, float]:
    """Median milliseconds of an attention call, and its TFLOP/s on the share of the pairs that it computes.

    FLOPs: two matrix products per head, Q K^T and P V, each ``2 * tokens^2 * head_dim``.
    """
    seconds = median_seconds(call, device)
    return {"milliseconds": seconds * 1e3, "tflops": 4 * tokens**2 * channels * kept / seconds / 1e12}
