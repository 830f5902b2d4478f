"""Program that measures the difference between the results of two processes together and of one alone.

Prints one line of JSON: the largest difference by case, as a share of the largest value, and the number of collective
operations of one call by mode.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import image_models
import torch
from diffusers import HunyuanVideoTransformer3DModel
from PIL import Image
from torch.distributed.device_mesh import init_device_mesh
from torch.utils._python_dispatch import TorchDispatchMode

from hunyuan_local.config import (
    ContextParallel,
    MagCache,
    ModelConfig,
    RuntimeProfile,
    TaylorSeerCache,
    load_model_config,
    load_profile,
)
from hunyuan_local.pipeline.attention.fallback import AttentionKernel
from hunyuan_local.pipeline.attention.mask_free import drop_padding
from hunyuan_local.pipeline.attention.parallel_attention import split_tokens
from hunyuan_local.pipeline.blocks import run_in_chunks
from hunyuan_local.pipeline.context_parallel import join
from hunyuan_local.pipeline.denoise import denoise
from hunyuan_local.pipeline.loading.loader import load_model
from hunyuan_local.pipeline.model import LoadedModel
from hunyuan_local.pipeline.process_group import ProcessGroup
from hunyuan_local.schema import GenerationRequest

# (frames, height, width) of the latents and tokens of the text. 45 and 27 tokens do not divide by 2, nor do 7 and 1.
SIZES = {"even": ((2, 6, 8), 6), "odd": ((3, 6, 10), 7), "one-token-text": ((3, 6, 6), 1)}
# With two frames the first one is exactly the first process's part; with one frame both have parts of it.
IMAGE_SIZES = SIZES | {"one-frame": ((1, 6, 6), 5)}
CONFIG, CPU = load_model_config("tiny"), load_profile("cpu")
REQUEST = GenerationRequest(
    prompt="a red circle moving right on a black background", negative_prompt="", true_cfg_scale=2.0, width=144,
    height=80, num_frames=5, num_inference_steps=4, seed=7,
).with_defaults(dict(CONFIG.defaults))  # fmt: skip
PROFILES = {
    "plain": CPU,
    "group-offload": CPU.model_copy(update={"offload": "group"}),
    "sequential-offload": CPU.model_copy(update={"offload": "sequential"}),
    "fp8": CPU.model_copy(update={"quantization": "fp8"}),
    "taylorseer": CPU.model_copy(update={"cache": TaylorSeerCache(kind="taylorseer", interval=2, start=0.0)}),
    "magcache": CPU.model_copy(
        update={"cache": MagCache(kind="magcache", threshold=0.9, start=0.2, mag_ratios=CONFIG.mag_ratios)}
    ),
}

_NO_COMMUNICATION = ("wait_tensor", "_wrap_tensor_autograd")
ALONE: dict[str, torch.Tensor] = {}  # latents of one process, by profile
DECODER: dict[str, torch.nn.Module] = {}


def toy(heads: int, kind: str | None = None) -> tuple[HunyuanVideoTransformer3DModel, AttentionKernel]:
    """A small transformer with random weights that drops the padding and runs in chunks, and its kernel."""
    torch.manual_seed(0)
    transformer = HunyuanVideoTransformer3DModel(
        image_condition_type=kind, in_channels=16 if kind is None else image_models.CHANNELS[kind],
        num_attention_heads=heads, attention_head_dim=32, num_layers=1, num_single_layers=1, num_refiner_layers=1,
        text_embed_dim=24, pooled_projection_dim=16, rope_axes_dim=(8, 12, 12),
    )  # fmt: skip
    kernel = drop_padding(transformer.eval(), "native")
    run_in_chunks(transformer)
    return transformer, kernel


def inputs(size: tuple[int, int, int], text: int, channels: int = 16) -> dict[str, torch.Tensor]:
    """The arguments with which the pipeline would call the transformer."""
    draw = torch.Generator().manual_seed(1)
    mask = torch.zeros(1, 16, dtype=torch.long)
    mask[:, :text] = 1
    return {
        "hidden_states": torch.randn(1, channels, *size, generator=draw),
        "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": torch.randn(1, 16, 24, generator=draw),
        "encoder_attention_mask": mask,
        "pooled_projections": torch.randn(1, 16, generator=draw),
        "guidance": torch.tensor([6000.0]),
    }


def latents(
    profile: RuntimeProfile, prepare: Callable[[LoadedModel], None], config: ModelConfig = CONFIG
) -> torch.Tensor:
    """The latents of the request, after four steps with true classifier-free guidance and a text of one token."""
    model = load_model(config, profile)
    prepare(model)
    request = REQUEST.replace(image=Image.new("RGB", (144, 80), "red")) if config.takes_image else REQUEST
    return denoise(model, request, (144, 80), lambda _: None, lambda _: None, lambda: False).latents


@torch.no_grad()
def transformer_cases(process_group: ProcessGroup) -> Iterator[tuple[str, float]]:
    """Single calls with sizes that do not divide evenly; Ulysses also with three heads on two processes."""
    for heads in (4, 3) if process_group.shared.mode == "ulysses" else (4,):
        (alone, _), (shared, kernel) = toy(heads), toy(heads)
        split_tokens(shared, process_group, kernel, "native", torch.device("cpu"))
        for name, (size, text) in SIZES.items():
            given = inputs(size, text)
            yield f"{heads}-heads-{name}", _apart(shared(**given)[0], alone(**given)[0])


@torch.no_grad()
def image_cases(process_group: ProcessGroup, folder: Path) -> Iterator[tuple[str, float]]:
    """Single calls and whole denoising runs of both image-to-video architectures."""
    for kind, channels in image_models.CHANNELS.items():
        (alone, _), (shared, kernel) = toy(4, kind), toy(4, kind)
        split_tokens(shared, process_group, kernel, "native", torch.device("cpu"))
        for name, (size, text) in IMAGE_SIZES.items():
            given = inputs(size, text, channels)
            yield f"{kind}-{name}", _apart(shared(**given)[0], alone(**given)[0])
        config = image_models.make_checkpoint(folder / kind, kind) if process_group.is_leader else None
        config = process_group.share(config)
        one = latents(CPU, lambda model: None, config)
        both = latents(CPU, lambda model: join(model, process_group, "auto"), config)
        yield f"{kind}-frames", (frames(both) - frames(one)).abs().max().item()


@torch.no_grad()
def collectives(process_group: ProcessGroup) -> dict[str, int]:
    """How many collective operations of each kind one call of a transformer of two blocks takes."""
    transformer, kernel = toy(4)
    split_tokens(transformer, process_group, kernel, "native", torch.device("cpu"))
    given = inputs(*SIZES["odd"])
    with Collectives() as seen:
        transformer(**given)
    return dict(seen.counts)


class Collectives(TorchDispatchMode):
    """Counts collective operations, those of diffusers and torch included."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.partition(".")[0]
        if func.namespace in ("c10d", "_c10d_functional") and name not in _NO_COMMUNICATION:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def denoising_cases(process_group: ProcessGroup, names: list[str]) -> Iterator[tuple[str, float]]:
    """Whole denoising runs by profile; offload alone changes nothing, so one process does not use it."""
    for name in names:
        alone = PROFILES[name].model_copy(update={"offload": "none"})
        key = alone.model_dump_json()
        if key not in ALONE:
            ALONE[key] = latents(alone, lambda model: None)
        found = latents(PROFILES[name], lambda model: join(model, process_group, "auto"))
        yield name, _apart(found, ALONE[key])
        if name == "plain":
            yield f"{name}-frames", (frames(found) - frames(ALONE[key])).abs().max().item()


@torch.no_grad()
def frames(denoised: torch.Tensor) -> torch.Tensor:
    """Decoded frames in float32 from 0 to 1, before they are rounded to bytes."""
    if "vae" not in DECODER:
        DECODER["vae"] = load_model(CONFIG, PROFILES["plain"]).pipe.vae
    vae = DECODER["vae"]
    return (vae.decode(denoised / vae.config.scaling_factor, return_dict=False)[0] / 2 + 0.5).clamp(0, 1)


def _apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


def rank_main(rank: int, port: int, folder: str) -> None:
    """All cases of both modes in one group of processes."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    ulysses = ProcessGroup.form("cpu", ContextParallel(degree=2))
    ring_mesh = init_device_mesh("cpu", (2, 1), mesh_dim_names=("ring", "ulysses"))
    ring = ProcessGroup(ulysses.rank, ContextParallel(degree=2, mode="ring"), ring_mesh)
    found = {f"ulysses-{name}": apart for name, apart in transformer_cases(ulysses)}
    found |= {f"ring-{name}": apart for name, apart in transformer_cases(ring)}
    found |= {f"ulysses-{name}": apart for name, apart in denoising_cases(ulysses, list(PROFILES))}
    found |= {f"ring-{name}": apart for name, apart in denoising_cases(ring, ["plain"])}
    found |= {f"ulysses-{name}": apart for name, apart in image_cases(ulysses, Path(folder) / "ulysses")}
    found |= {f"ring-{name}": apart for name, apart in image_cases(ring, Path(folder) / "ring")}
    calls = {"ulysses": collectives(ulysses), "ring": collectives(ring)}
    if ulysses.is_leader:
        print(json.dumps({"differences": found, "collectives": calls}), flush=True)
    ulysses.leave()


if __name__ == "__main__":
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    # Forked rather than spawned: importing the libraries takes longer than all cases.
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(rank_main, (number, folder), nprocs=2, start_method="fork")
