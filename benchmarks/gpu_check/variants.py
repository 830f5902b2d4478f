"""Compares ways to run the transformer's blocks: one block of each kind, loaded by the package in each profile.

The first way is the reference of the others' results. ``diffusers`` is the library's own code, with its mask.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from diffusers import HunyuanVideoTransformer3DModel
from torch.profiler import ProfilerActivity, profile

from hunyuan_local.backends.local.profile_choice import named_profile
from hunyuan_local.config import RuntimeProfile
from hunyuan_local.errors import ConfigError
from hunyuan_local.pipeline import acceleration
from hunyuan_local.pipeline.loading.loader import load_model

from .plans import model_config
from .timing import median_seconds, now, peaks, reset_peaks, row_of

DIFFUSERS = "diffusers"
# Names of kernels by kind, the first that matches; operators of a CPU included.
_KINDS = {
    "attention": r"fmha|flash|sdpa|attention|attend",
    "products": r"gemm|nvjet|xmma|cutlass|cublas|addmm|aten::mm|aten::bmm|linear|scaled_mm",
}


def compare(task: dict[str, Any], record: dict[str, Any], save: Callable[[], None]) -> None:
    """Run each variant, and fill ``record``; a variant that fails is a row with its error.

    Args:
        task: ``device``, ``checkpoint`` (folder), ``latents`` (frames, height, width), ``text`` (tokens),
            ``compiler`` (of torch.compile), and ``variants``: by name, changes of the profile ``none``, or DIFFUSERS.
        record: gets ``rows``, each with ``variant``, ``dual ms`` and ``single ms`` (a block), ``pass ms``,
            ``first s`` (the first pass, with compilation), peaks, and against the first variant ``equal`` (share of
            elements) and ``off by`` (relative); and by variant ``kernels``, milliseconds by kind and of the largest.
        save: saves the current record.
    """
    record["kernels"] = {}
    reference: torch.Tensor | None = None
    for name, change in task["variants"].items():
        with row_of(record, save, variant=name) as row:
            found, record["kernels"][name] = _measure(task, change, row)
            reference = found if reference is None else reference
            row["equal"] = (found == reference).float().mean().item()
            row["off by"] = ((found.float() - reference.float()).norm() / reference.float().norm()).item()


@torch.no_grad()
def _measure(
    task: dict[str, Any], change: str | dict[str, Any], row: dict[str, Any]
) -> tuple[torch.Tensor, dict[str, float]]:
    """Fill the row; returns the output of a pass, and ``by_kernel`` of a pass."""
    device = task["device"]
    with contextlib.ExitStack() as stack:
        transformer = stack.enter_context(_transformer(task, change))
        inputs = step_inputs(transformer, task["latents"], task["text"], device)
        reset_peaks(device)
        began = now(device)
        output: torch.Tensor = transformer(**inputs)[0]
        row["first s"] = now(device) - began
        row["pass ms"] = 1e3 * median_seconds(lambda: transformer(**inputs), device, calls=3)
        row |= _block_milliseconds(transformer, inputs, device)
        row |= {name: value for name, value in peaks(device).items() if name.startswith("gpu")}
        return output, by_kernel(lambda: transformer(**inputs), device)


@contextlib.contextmanager
def _transformer(task: dict[str, Any], change: str | dict[str, Any]) -> Iterator[torch.nn.Module]:
    """The transformer of a variant, on the device."""
    device, folder = task["device"], Path(task["checkpoint"])
    if change == DIFFUSERS:
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        options = {"torch_dtype": dtype, "device_map": {"": torch.device(device)}}
        yield HunyuanVideoTransformer3DModel.from_pretrained(folder / "transformer", **options)
        return
    assert isinstance(change, dict)
    compiled = functools.partial(acceleration.compile_blocks, backend=task["compiler"])
    with mock.patch.object(acceleration, "compile_blocks", compiled):
        model = load_model(model_config(folder), profile_of("none", **change))
    with model.placement.active("transformer"):
        yield model.pipe.transformer
    model.placement.close()


def profile_of(mode: str, **changes: Any) -> RuntimeProfile:
    """The profile of a mode with changes, without the prompt cache, so that encoding is measured.

    Raises:
        ConfigError: no such mode.
        ValidationError: no such setting, or settings that exclude each other.
    """
    profile = named_profile(mode)
    if profile is None:
        raise ConfigError(f"mode={mode!r}: must be one mode, such as group+tiling; 'hunyuan-local plan' lists them")
    return RuntimeProfile(**(dict(profile) | {"prompt_cache": False} | changes))


def step_inputs(transformer: Any, latents: list[int], text: int, device: str) -> dict[str, Any]:
    """Random arguments of a pass.

    Args:
        transformer: its config has the sizes.
        latents: frames, height, width.
        text: tokens, all of them real.
        device: where the tensors are.
    """
    config, dtype = transformer.config, torch.bfloat16 if device == "cuda" else torch.float32
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    return {
        "hidden_states": draw(1, config.in_channels, *latents),
        "timestep": torch.tensor([900.0], device=device, dtype=dtype),
        "encoder_hidden_states": draw(1, text, config.text_embed_dim),
        "encoder_attention_mask": torch.ones(1, text, device=device, dtype=torch.int64),
        "pooled_projections": draw(1, config.pooled_projection_dim),
        "guidance": torch.tensor([6000.0], device=device, dtype=dtype),
        "return_dict": False,
    }


class _Timed(torch.nn.Module):
    """A block whose milliseconds are kept; a hook would be compiled with the block, and break its graph."""

    def __init__(self, block: torch.nn.Module, device: str):
        super().__init__()
        self.block, self._device, self.milliseconds = block, device, 0.0

    def forward(self, *args: Any, **options: Any) -> Any:
        """As the block."""
        began = now(self._device)
        output = self.block(*args, **options)
        self.milliseconds = 1e3 * (now(self._device) - began)
        return output


def _block_milliseconds(transformer: Any, inputs: dict[str, Any], device: str) -> dict[str, float]:
    """Milliseconds of the first dual and the first single block in one pass."""
    lists = {"dual ms": transformer.transformer_blocks, "single ms": transformer.single_transformer_blocks}
    timed = {name: _Timed(blocks[0], device) for name, blocks in lists.items()}
    for name, blocks in lists.items():
        blocks[0] = timed[name]
    transformer(**inputs)
    for name, blocks in lists.items():
        blocks[0] = timed[name].block
    return {name: found.milliseconds for name, found in timed.items()}


def by_kernel(call: Callable[[], object], device: str) -> dict[str, float]:
    """Milliseconds of one call by kind of kernel, and of the largest kernels of no known kind."""
    activity = ProfilerActivity.CUDA if device == "cuda" else ProfilerActivity.CPU
    with profile(activities=[activity]) as found:
        call()
        now(device)
    kinds, others = dict.fromkeys((*_KINDS, "the rest"), 0.0), {}
    for item in found.key_averages():
        time = (item.self_device_time_total if device == "cuda" else item.self_cpu_time_total) / 1e3
        kind = next((kind for kind, pattern in _KINDS.items() if re.search(pattern, item.key, re.IGNORECASE)), None)
        kinds[kind or "the rest"] += time
        if kind is None:
            others[f"{item.count} x {item.key[:90]}"] = time
    return kinds | dict(sorted(others.items(), key=lambda pair: -pair[1])[:6])
