"""Times the attention kernels that work here at the lengths of real videos, and diffusers' masked attention."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from hunyuan_local.config.kernels import EXACT, INEXACT
from hunyuan_local.pipeline.attention.kernel_choice import find_problem
from hunyuan_local.pipeline.attention.kernels import attend

from .timing import median_seconds

MASKED = "native, masked"
# Number of padding tokens that a short prompt leaves of the text's 256.
_PADDING = 200


def compare(task: dict[str, Any], record: dict[str, Any], save: Callable[[], None]) -> None:
    """Time every kernel at every length, and fill ``record``.

    Args:
        task: ``device``, ``tokens`` (the lengths), ``heads`` and ``head_dim``.
        record: gets ``problems``, the reason why a kernel is unavailable, by kernel; and ``rows``, each with
            ``tokens``, ``kernel``, ``milliseconds`` (median per call) and ``tflops`` (achieved), or ``error``.
        save: saves the current record.
    """
    device, heads, head_dim = task["device"], task["heads"], task["head_dim"]
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    problems = {name: find_problem(name, device, dtype, head_dim) for name in (*EXACT, *INEXACT)}
    record |= {
        "heads": heads,
        "head_dim": head_dim,
        "problems": {name: problem for name, problem in problems.items() if problem is not None},
        "rows": [],
    }
    working = [name for name, problem in problems.items() if problem is None]
    for tokens in task["tokens"]:
        for kernel in (*working, MASKED):
            row: dict[str, Any] = {"tokens": tokens, "kernel": kernel}
            try:
                seconds = _time(kernel, (1, tokens, heads, head_dim), device, dtype)
                # FLOPs: two matrix products per head, Q K^T and P V, each 2 * tokens^2 * head_dim.
                operations = 4 * tokens**2 * heads * head_dim
                row |= {"milliseconds": seconds * 1e3, "tflops": operations / seconds / 1e12}
            except Exception as error:  # kernels raise different errors
                row["error"] = (str(error).strip() or type(error).__name__).split("\n")[0]
            record["rows"].append(row)
            save()


@torch.no_grad()
def _time(kernel: str, shape: tuple[int, int, int, int], device: str, dtype: torch.dtype) -> float:
    """Median seconds of a few calls after a warm-up."""
    query, key, value = (torch.randn(shape, device=device, dtype=dtype) for _ in range(3))
    mask = None
    if kernel == MASKED:  # [1, 1, 1, tokens], as in HunyuanVideoTransformer3DModel.forward
        mask = torch.ones(1, 1, 1, shape[1], device=device, dtype=torch.bool)
        mask[..., -_PADDING:] = False
    call = functools.partial(attend, "native" if mask is not None else kernel, query, key, value, mask)
    return median_seconds(call, device)
