"""A device that runs out of memory at chosen calls of the libraries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoTransformer3DModel
from transformers import LlamaModel

from hunyuan_local.pipeline.loading import loader


class Shortage:
    """A device that runs out of memory at chosen calls of one function."""

    def __init__(self, call: Callable, at: set[int]):
        self.call, self.at, self.count = call, at, 0

    def __call__(self, *args: object, **kwargs: object) -> object:
        self.count += 1
        if self.count in self.at:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.call(*args, **kwargs)


@contextmanager
def short_of(**at: set[int]) -> Iterator[dict[str, Shortage]]:
    """Makes stages run out of memory at calls with these numbers, and counts the calls."""
    places = {
        "load": (loader, "_read"),
        "encode": (LlamaModel, "forward"),
        "denoise": (HunyuanVideoTransformer3DModel, "forward"),
        "decode": (AutoencoderKLHunyuanVideo, "decode"),
    }
    shortages = {stage: Shortage(getattr(*places[stage]), calls) for stage, calls in at.items()}
    with pytest.MonkeyPatch.context() as patch:
        for stage, shortage in shortages.items():
            patch.setattr(*places[stage], lambda *args, shortage=shortage, **kwargs: shortage(*args, **kwargs))
        yield shortages
