"""The machine card: what the figures depend on, without the name of the machine or its user."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hunyuan_local.backends.profiles import available_machine
from hunyuan_local.planner import Machine
from hunyuan_local.planner.machine import recognise
from hunyuan_local.provenance import library_versions, now

# Packages that bring kernels or ways to quantise; the rest is in provenance.library_versions.
_OPTIONAL = ("triton", "torchao", "bitsandbytes", "flash-attn", "flash-attn-3", "sageattention", "xformers", "kernels")


def describe(task: dict[str, Any], record: dict[str, Any], save: Callable[[], None]) -> None:
    """Fill ``record`` with the card of this machine; takes memory of the GPU, so it runs in a process of its own."""
    machine = available_machine()
    record |= {
        "date": now(),
        "gpu": None if machine.gpu_memory_bytes is None else _gpu(),
        "available_gpu_bytes": machine.gpu_memory_bytes,
        "cpu": {"model": _cpu_model(), "cores": os.cpu_count()},
        "host_memory_bytes": machine.host_memory_bytes,
        "versions": library_versions() | _optional_versions(),
        "libraries": sorted(machine.libraries or ()),
        "allocator": os.environ.get("PYTORCH_ALLOC_CONF") or os.environ.get("PYTORCH_CUDA_ALLOC_CONF"),
    }


def machine_of(card: dict[str, Any]) -> Machine:
    """The machine of a card, as the planner takes it: with the GPU memory that other programs leave."""
    gpu, libraries = card["gpu"], frozenset(card["libraries"])
    spec = None if gpu is None else recognise(gpu["name"], gpu["memory_bytes"], tuple(gpu["compute_capability"]))
    return Machine(card["available_gpu_bytes"], card["host_memory_bytes"], spec, libraries)


def file_name(card: dict[str, Any]) -> str:
    """The GPU's name in lower case with dashes, such as ``nvidia-h100-80gb-hbm3.json``."""
    title = f"cpu {card['cpu']['model']}" if card["gpu"] is None else card["gpu"]["name"]
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") + ".json"


def _gpu() -> dict[str, Any]:
    import torch

    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "compute_capability": [properties.major, properties.minor],
        "count": torch.cuda.device_count(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": _ask_driver("driver_version"),
        "power_limit_w": _ask_driver("power.limit"),
    }


def _ask_driver(field: str) -> str | None:
    """What nvidia-smi says of the first GPU; None where it cannot be asked. All GPUs of a machine share the driver."""
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return None
    return lines[0].strip() if lines else None


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), platform.machine())


def _optional_versions() -> dict[str, str]:
    found = {}
    for name in _OPTIONAL:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
