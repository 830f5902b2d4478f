"""The machine to plan for: its memory, its GPU, and how torch allocates there.

Knows nothing about models.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..config import GIB
from ..config.allocator import AS_SET, Allocator, this_allocator
from ..config.quantization import installed_libraries
from ..errors import ConfigError
from .cards import GpuSpec, gpu_specs, recognise
from .host_memory import available_bytes

_UNITS = {"b": 1, "kib": 2**10, "mib": 2**20, "gib": GIB, "tib": 2**40, "mb": 10**6, "gb": 10**9, "tb": 10**12}
# What only a build of torch for AMD's GPUs contains, on Linux and Windows.
_HIP_LIBRARIES = ("libtorch_hip.so", "torch_hip.dll")
# float32 FLOP/s per core, as the built-in model reached on a shared server.
CPU_CORE_FLOPS = 10e9


@dataclass(frozen=True)
class Machine:
    """The machine that generates the video.

    Attributes:
        gpu_memory_bytes: total memory of the GPU as torch reports it; None plans for the CPU.
        host_memory_bytes: main memory that the process can have; None if unknown, which skips the check.
        gpu: the GPU model; None if only its memory is known.
        libraries: installed optional packages; None if unknown, which assumes that all are installed.
        allocator: how torch allocates on this machine.
        why_not_compile: what is missing to compile blocks; None if nothing is, or if it is not known.
    """

    gpu_memory_bytes: int | None
    host_memory_bytes: int | None
    gpu: GpuSpec | None = None
    libraries: frozenset[str] | None = None
    allocator: Allocator = AS_SET
    why_not_compile: str | None = None

    @property
    def device(self) -> Literal["cuda", "cpu"]:
        """``cuda`` or ``cpu``; torch calls AMD's GPUs ``cuda``, too."""
        return "cpu" if self.gpu_memory_bytes is None else "cuda"

    @property
    def reference(self) -> GpuSpec | None:
        """The GPU whose speed to assume: the machine's, or if unknown, a common one with the closest memory."""
        memory = self.gpu_memory_bytes
        if self.gpu is not None or memory is None:
            return self.gpu
        return min(
            (spec for spec in gpu_specs() if spec.usual), key=lambda spec: abs(spec.memory_bytes - memory), default=None
        )


def parse_memory(text: str, option: str) -> int:
    """Bytes of a size such as ``24GiB`` or ``64GB``.

    Raises:
        ConfigError: not a number with a unit, or not above 0.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*", text)
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None or float(match[1]) == 0:
        raise ConfigError(f"{option}={text!r}: must be a number above 0 with its unit, such as 24GiB or 64GB")
    return round(float(match[1]) * unit)


def detect_machine() -> Machine:
    """This machine: its first visible GPU if there is one, and the main memory that this process can have now."""
    if not has_cuda_driver():
        return machine_without_gpu()
    from ..pipeline.memory.device import cuda_devices

    devices = cuda_devices()
    if not devices:
        return machine_without_gpu()
    first = devices[0]
    return machine_with_gpu(first.name, first.memory_bytes, first.capability, first.rocm)


def machine_without_gpu() -> Machine:
    """This machine without its GPUs."""
    return Machine(None, available_bytes(), libraries=installed_libraries())


def machine_with_gpu(name: str, memory_bytes: int, capability: tuple[int, int], rocm: str | None) -> Machine:
    """This machine with one of its GPUs, as :class:`..pipeline.memory.device.CudaDevice` describes it."""
    gpu = recognise(name, memory_bytes, capability, "nvidia" if rocm is None else "amd")
    allocator = this_allocator(rocm=rocm is not None)
    return Machine(memory_bytes, available_bytes(), gpu, installed_libraries(), allocator, why_not_compile())


def why_not_compile() -> str | None:
    """What this machine lacks for compiling blocks for a GPU; Triton also needs a C compiler when it runs."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed (pip install triton)"
    if os.environ.get("CC") or any(shutil.which(name) for name in ("gcc", "clang", "cc", "cl")):
        return None
    return "there is no C compiler (install gcc, or set CC)"


def has_cuda_driver() -> bool:
    """Whether NVIDIA's driver is installed, or torch is a build for AMD's GPUs, which it also calls CUDA devices.

    Saves importing torch if not.
    """
    try:
        ctypes.CDLL("libcuda.so.1" if os.name == "posix" else "nvcuda.dll")
    except OSError:
        return is_rocm_build()
    return True


def is_rocm_build() -> bool:
    """Whether the installed torch is a build for AMD's GPUs (``torch.version.hip``), without importing it."""
    found = importlib.util.find_spec("torch")
    folders = [] if found is None else found.submodule_search_locations or []
    return any((Path(folder) / "lib" / name).exists() for folder in folders for name in _HIP_LIBRARIES)
