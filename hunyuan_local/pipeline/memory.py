"""The device's memory: how much there is, how much was taken, and a device left clean."""

from __future__ import annotations

import contextlib
import gc
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from ..config import RuntimeProfile
from ..errors import GpuMemoryError
from ..schema import Stage
from .allocator import give_back_memory
from .devices import available_bytes

if TYPE_CHECKING:
    from .loader import LoadedModel

# Page-locked memory, cuBLAS's and cuDNN's workspaces; cuDNN finds no engine where its workspace does not fit.
_SHORTAGES = (
    "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "unable to find an engine",
)  # fmt: skip


def gpu_count() -> int:
    """How many CUDA devices are visible; unlike :func:`.devices.cuda_devices` takes no memory of any."""
    return torch.cuda.device_count()


def why_no_gpu() -> str | None:
    """Why no CUDA device can be used, or None if one can."""
    if torch.cuda.is_available():
        return None
    return "this build of torch has no CUDA" if torch.version.cuda is None else "no CUDA device is visible"


def default_model() -> str:
    """``hunyuan-video`` on a machine with a CUDA device, else the built-in ``tiny``."""
    return "hunyuan-video" if torch.cuda.is_available() else "tiny"


def free_device() -> None:
    """Return memory that no component holds any longer."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        # Page-locked copies of weights are kept by an allocator of their own.
        empty_host_cache = getattr(torch.accelerator, "empty_host_cache", None) or torch._C._host_emptyCache
        empty_host_cache()


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


def decoding_bytes(model: LoadedModel) -> int | None:
    """Bytes of the device that the decoding may take, beside the autoencoder's weights; None on a CPU."""
    if model.placement.device_of("vae").type != "cuda":
        return None
    arriving = 0
    if model.profile.residence("vae") == "visit":
        arriving = sum(tensor.nbytes for tensor in model.pipe.vae.parameters())
    free_device()
    return available_bytes() - torch.cuda.memory_allocated(0) - arriving


@contextlib.contextmanager
def clean_device(model: LoadedModel, stage: Stage, component: str) -> Iterator[None]:
    """Have a component on the device inside; afterwards, whatever happened, no cache and no tensor is left.

    Nor is a visitor, unless it was asked to stay.

    Raises:
        GpuMemoryError: the device ran out of memory.
    """
    try:
        with translated_shortage(stage), model.placement.active(component):
            yield
    finally:
        model.pipe.maybe_free_model_hooks()
        if model.profile.device == "cpu":
            give_back_memory()


@contextlib.contextmanager
def translated_shortage(stage: Stage) -> Iterator[None]:
    """What the libraries raise inside for want of memory is raised as :class:`GpuMemoryError`.

    Raises:
        GpuMemoryError: the device, or page-locked memory of the host, ran out.
    """
    try:
        yield
    except RuntimeError as error:  # torch's own class of error is one of several
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(error, stage) from None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch, cuBLAS or cuDNN is for want of memory; only torch's allocator has a class for it."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or any(word in text for word in _SHORTAGES)


def out_of_memory(error: BaseException, stage: Stage) -> GpuMemoryError:
    """The library's error as ours, without the frames that keep the tensors of the failed call alive."""
    peak_bytes = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    text = (str(error).strip() or "out of memory").split("\n")[0]
    traceback.clear_frames(error.__traceback__)
    return GpuMemoryError(
        f"the device's memory ran out in the stage {stage} ({text})", stage=stage, peak_bytes=peak_bytes
    )
