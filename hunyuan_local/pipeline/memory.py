"""Where the components are: the profile of a machine, placement, and a device left clean."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

import torch
from diffusers import HunyuanVideoPipeline

from ..config import GIB, RuntimeProfile, load_profile, profile_names
from ..errors import GpuMemoryError


def gpus() -> list[tuple[str, float]]:
    """Name and memory in GiB of every visible CUDA device."""
    properties = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return [(p.name, p.total_memory / GIB) for p in properties]


def gpu_count() -> int:
    """How many CUDA devices are visible; unlike :func:`gpus` takes no memory of any."""
    return torch.cuda.device_count()


def why_no_gpu() -> str | None:
    """Why no CUDA device can be used, or None if one can."""
    if torch.cuda.is_available():
        return None
    return "this build of torch has no CUDA" if torch.version.cuda is None else "no CUDA device is visible"


def default_profile() -> RuntimeProfile:
    """The profile for this machine: the largest that the first GPU has memory for, else ``cpu``."""
    if not torch.cuda.is_available():
        return load_profile("cpu")
    return choose_profile(gpus()[0][1])


def default_model() -> str:
    """``hunyuan-video`` on a machine with a CUDA device, else the built-in ``tiny``."""
    return "hunyuan-video" if torch.cuda.is_available() else "tiny"


def choose_profile(gpu_memory_gib: float) -> RuntimeProfile:
    """The CUDA profile with the most memory to use that this much GPU memory in GiB allows."""
    profiles = sorted(
        (p for p in map(load_profile, profile_names()) if p.device == "cuda"), key=lambda p: p.min_gpu_memory_gib
    )
    fitting = [p for p in profiles if p.min_gpu_memory_gib <= gpu_memory_gib]
    return fitting[-1] if fitting else profiles[0]


def place(pipe: HunyuanVideoPipeline, profile: RuntimeProfile) -> None:
    """Put the components where the profile says, or hook them to be moved there when needed."""
    if profile.vae_tiling:
        pipe.vae.enable_tiling()
    if profile.offload == "model":
        pipe.enable_model_cpu_offload(device=profile.device)
    elif profile.offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=profile.device)
    else:
        pipe.to(profile.device)


def free_device() -> None:
    """Return memory that no component holds any longer."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def device_name(profile: RuntimeProfile) -> str:
    """What the profile's device is called, for provenance."""
    if profile.device == "cuda":
        return f"{torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}"
    return f"cpu, {torch.get_num_threads()} threads"


def device_memory(profile: RuntimeProfile) -> tuple[int, int] | None:
    """Bytes that the process took of the device at most, and all it has; None for the CPU."""
    if profile.device != "cuda":
        return None
    return torch.cuda.max_memory_reserved(0), torch.cuda.get_device_properties(0).total_memory


@contextlib.contextmanager
def clean_device(pipe: HunyuanVideoPipeline, doing: str, remedy: str) -> Iterator[None]:
    """Whatever happens inside: offloaded components leave the device, and no cache stays behind.

    Raises:
        GpuMemoryError: the device ran out of memory while ``doing``.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise GpuMemoryError(f"the GPU's memory ran out while {doing}; {remedy} (--profile)") from error
    finally:
        pipe.maybe_free_model_hooks()
