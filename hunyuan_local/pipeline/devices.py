"""The CUDA devices that torch sees, without loading any model library."""

from __future__ import annotations

from dataclasses import dataclass

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
