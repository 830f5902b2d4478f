"""The devices that torch sees and their memory: total, used, and how to recognize an out-of-memory error.

Loads no model library.
"""

from __future__ import annotations

import contextlib
import gc
import re
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch

from ...config import RuntimeProfile
from ...errors import GpuMemoryError
from ...schema import Stage
from ..torch_private import free_pinned_memory

# How libraries other than torch's allocator report a lack of memory: CUDA and its driver (page-locked memory,
# expandable segments), NCCL and Triton in words; cuBLAS, cuDNN and cuSOLVER by status. Creating their handles needs
# memory too, and reports NOT_INITIALIZED without it. cuDNN finds no engine if its workspace does not fit.
_SHORTAGE = re.compile(
    r"\bout of memory\b|ALLOC(ATION)?_FAILED\b|\bCU(BLAS|DNN|SOLVER)_STATUS_NOT_INITIALIZED\b|unable to find an engine",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class CudaDevice:
    """One visible device.

    Attributes:
        name: as torch calls it.
        memory_bytes: its total memory.
        capability: compute capability of NVIDIA's GPUs; for AMD's, the first two numbers of the ``gfx`` name.
        rocm: version of ROCm if torch is a build for AMD's GPUs, which torch calls ``cuda`` too; None for NVIDIA's.
    """

    name: str
    memory_bytes: int
    capability: tuple[int, int]
    rocm: str | None = None


def cuda_devices() -> list[CudaDevice]:
    """Every visible CUDA device, in torch's order."""
    properties = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return [CudaDevice(p.name, p.total_memory, (p.major, p.minor), torch.version.hip) for p in properties]


def nvidia_capability(device: str | torch.device) -> tuple[int, int] | None:
    """The CUDA compute capability of a device; None for a CPU and for AMD's GPUs, whose numbers mean something else."""
    if torch.device(device).type != "cuda" or torch.version.hip is not None:
        return None
    return torch.cuda.get_device_capability(device)


def available_bytes() -> int:
    """Bytes of the first CUDA device that are free or held by this process."""
    return free_bytes(0) + torch.cuda.memory_reserved(0)


def free_bytes(index: int) -> int:
    """Free bytes of a CUDA device; creates a CUDA context on it, which takes about 0.5 GiB."""
    return torch.cuda.mem_get_info(index)[0]


def describe_gpu() -> dict[str, Any]:
    """The first CUDA device and torch's CUDA, ROCm and cuDNN versions, for a machine card."""
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "compute_capability": [properties.major, properties.minor],
        "count": torch.cuda.device_count(),
        "cuda": torch.version.cuda,
        **({"rocm": torch.version.hip} if torch.version.hip else {}),
        "cudnn": cast("Callable[[], int | None]", torch.backends.cudnn.version)(),
    }


def reset_peak() -> None:
    """Reset torch's peak memory statistics of the first CUDA device, if CUDA is in use."""
    if torch.cuda.is_available() and cast("Callable[[], bool]", torch.cuda.is_initialized)():
        torch.cuda.reset_peak_memory_stats(0)


def num_threads() -> int:
    """Number of CPU threads that torch uses."""
    return torch.get_num_threads()


def cpu_has_bfloat16() -> bool:
    """Whether this processor has bfloat16 instructions (AVX-512 BF16, AMX, or Arm's BF16); others emulate it."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def gpu_count() -> int:
    """Number of visible CUDA devices; unlike :func:`cuda_devices`, allocates no memory on them."""
    return torch.cuda.device_count()


def why_no_gpu() -> str | None:
    """Why no CUDA device can be used, or None if one can."""
    if torch.cuda.is_available():
        return None
    if torch.version.hip is not None:
        return "this build of torch is for AMD's GPUs (ROCm), and no AMD GPU is visible"
    return "this build of torch has no CUDA" if torch.version.cuda is None else "no CUDA device is visible"


def default_model() -> str:
    """``hunyuan-video`` on a machine with a CUDA device, else the built-in ``tiny``."""
    return "hunyuan-video" if torch.cuda.is_available() else "tiny"


def free_device() -> None:
    """Free unused device memory and page-locked memory."""
    gc.collect()
    # Not ``is_available``: to synchronize creates a CUDA context in a process that has none, and so nothing to free.
    if cast("Callable[[], bool]", torch.cuda.is_initialized)():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        # Page-locked copies of weights are kept by a separate allocator.
        free_pinned_memory()


def platform_of_torch() -> str:
    """What torch was built for: ``CUDA 13.0`` or ``ROCm 7.0``."""
    return f"CUDA {torch.version.cuda}" if torch.version.hip is None else f"ROCm {torch.version.hip}"


def device_name(profile: RuntimeProfile) -> str:
    """Name of the profile's device, for provenance."""
    if profile.device == "cuda":
        return f"{torch.cuda.get_device_name(0)}, {platform_of_torch()}"
    return f"cpu, {torch.get_num_threads()} threads"


def device_memory(profile: RuntimeProfile) -> tuple[int, int] | None:
    """(peak bytes reserved by this process, total bytes of the device); None for the CPU."""
    if profile.device != "cuda":
        return None
    return torch.cuda.max_memory_reserved(0), torch.cuda.get_device_properties(0).total_memory


@contextlib.contextmanager
def translated_shortage(stage: Stage) -> Iterator[None]:
    """Raise the libraries' out-of-memory errors as :class:`GpuMemoryError`.

    Raises:
        GpuMemoryError: the device, or page-locked memory of the host, ran out.
    """
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is only one of several
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(error, stage) from None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a library's error means out of memory; only torch's allocator has a class for it."""
    return isinstance(error, torch.OutOfMemoryError) or _SHORTAGE.search(str(error)) is not None


def out_of_memory(error: BaseException, stage: Stage) -> GpuMemoryError:
    """Convert a library's error; clears its traceback frames, which keep the tensors of the failed call alive."""
    peak_bytes = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    text = (str(error).strip() or "out of memory").split("\n")[0]
    traceback.clear_frames(error.__traceback__)
    return GpuMemoryError(
        f"the device's memory ran out in the stage {stage} ({text})", stage=stage, peak_bytes=peak_bytes
    )
