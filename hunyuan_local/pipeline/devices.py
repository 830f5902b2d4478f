"""The devices that torch sees, without loading any model library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class CudaDevice:
    """One visible device; ``memory_bytes`` is its total."""

    name: str
    memory_bytes: int
    capability: tuple[int, int]


def cuda_devices() -> list[CudaDevice]:
    """Every visible CUDA device, in torch's order."""
    properties = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return [CudaDevice(p.name, p.total_memory, (p.major, p.minor)) for p in properties]


def available_bytes() -> int:
    """Bytes of the first CUDA device that nobody has taken but this process."""
    free, _ = torch.cuda.mem_get_info(0)
    return free + torch.cuda.memory_reserved(0)


def describe_gpu() -> dict[str, Any]:
    """The first CUDA device, and what torch computes with on it, for a machine card."""
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "compute_capability": [properties.major, properties.minor],
        "count": torch.cuda.device_count(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def reset_peak() -> None:
    """Begin torch's peaks of the first CUDA device's memory anew, if there is one in use."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats(0)


def num_threads() -> int:
    """How many threads torch computes with on the CPU."""
    return torch.get_num_threads()


def cpu_has_bfloat16() -> bool:
    """Whether this processor computes in bfloat16 itself (AVX-512 BF16, AMX, or Arm's BF16); others emulate it."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
