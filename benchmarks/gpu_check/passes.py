"""Compares ways to run the transformer's blocks: compiled, quantized, streamed, by this package or by diffusers."""

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

from .checkpoint import repeat_blocks, repeated
from .plans import model_config
from .task import Record
from .timing import dtype_on, now, peaks, reset_peaks, seconds_of

# A variant of this single key is diffusers' own transformer, with its mask: the value has the options of its group
# offload, or None without offload.
DIFFUSERS = "diffusers"
_PASSES = 4
# Names of kernels by kind, the first that matches; operators of a CPU included.
_KINDS = {
    "attention": r"fmha|flash|sdpa|attention|attend",
    "products": r"gemm|nvjet|xmma|cutlass|cublas|addmm|aten::mm|aten::bmm|linear|scaled_mm",
}


def compare(record: Record, *, variants: dict[str, dict[str, Any]], **setting: Any) -> None:
    """Run each variant, which changes the profile ``none`` or is ``DIFFUSERS``'s; ``setting`` is that of ``_measure``.

    Fills ``rows``, each with ``set up s`` (loading), ``pass s`` (of each pass; the first one compiles), ``dual ms`` and
    ``single ms`` (a block), peaks, and against the first variant ``equal`` (share of elements) and ``off by``
    (relative); and ``kernels`` by variant, as ``by_kernel``.
    """
    record["kernels"] = {}
    reference: torch.Tensor | None = None
    for name, change in variants.items():
        with record.row(variant=name) as row:
            found, record["kernels"][name] = _measure(change, row, **setting)
            reference = found if reference is None else reference
            row["equal"] = (found == reference).float().mean().item()
            row["off by"] = ((found.float() - reference.float()).norm() / reference.float().norm()).item()


@torch.no_grad()
def _measure(
    change: dict[str, Any], row: dict[str, Any], *, device: str, checkpoint: str, blocks: dict[str, int],
    grid: list[int], text: int, compiler: str,
) -> tuple[torch.Tensor, dict[str, float]]:  # fmt: skip
    """Fill the row of one variant; returns the output of a pass, and ``by_kernel`` of a pass.

    ``grid`` is of the video's tokens (frames, rows, columns), ``text`` the number of text tokens, ``blocks`` the counts
    by list, one for lists that are not named.
    """
    with contextlib.ExitStack() as stack:
        began = now(device)
        if DIFFUSERS in change:
            transformer: Any = _diffusers(Path(checkpoint), blocks, device, change[DIFFUSERS])
        else:
            stack.enter_context(repeated(blocks))
            transformer = stack.enter_context(_package(Path(checkpoint), compiler, change))
        row["set up s"] = now(device) - began
        call = functools.partial(transformer, **step_inputs(transformer, grid, text, device))
        reset_peaks()
        outputs: list[torch.Tensor] = []
        row["pass s"] = [seconds_of(lambda: outputs.append(call()[0]), device) for _ in range(_PASSES)]
        row |= peaks(device)
        row |= _block_milliseconds(transformer, call, device)
        return outputs[0], by_kernel(call, device)


@contextlib.contextmanager
def _package(folder: Path, compiler: str, change: dict[str, Any]) -> Iterator[torch.nn.Module]:
    """The package's transformer on its device, in the profile ``none`` with changes."""
    compiled = functools.partial(acceleration.compile_blocks, backend=compiler)
    with mock.patch.object(acceleration, "compile_blocks", compiled):
        model = load_model(model_config(folder), profile_of("none", **change))
    with model.placement.active("transformer"):
        yield model.pipe.transformer
    model.placement.close()


def _diffusers(
    folder: Path, blocks: dict[str, int], device: str, offload: dict[str, Any] | None
) -> HunyuanVideoTransformer3DModel:
    """diffusers' own transformer, on the device or with its group offload."""
    transformer = HunyuanVideoTransformer3DModel.from_pretrained(folder / "transformer", torch_dtype=dtype_on(device))
    repeat_blocks(transformer, blocks)
    if offload is None:
        return transformer.to(device)
    transformer.enable_group_offload(torch.device(device), num_blocks_per_group=1, **offload)
    return transformer


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


def step_inputs(transformer: Any, grid: list[int], text: int, device: str) -> dict[str, Any]:
    """Random arguments of a pass with a grid of tokens of the video, and all text tokens real."""
    config, dtype = transformer.config, dtype_on(device)
    generator = torch.Generator().manual_seed(0)
    frames, rows, columns = grid

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    return {
        "hidden_states": draw(1, config.in_channels, frames, 2 * rows, 2 * columns),
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


def _block_milliseconds(transformer: Any, call: Callable[[], object], device: str) -> dict[str, float]:
    """Milliseconds of the first dual and the first single block in one pass."""
    lists = {"dual ms": transformer.transformer_blocks, "single ms": transformer.single_transformer_blocks}
    timed = {name: _Timed(blocks[0], device) for name, blocks in lists.items()}
    for name, blocks in lists.items():
        blocks[0] = timed[name]
    call()
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
