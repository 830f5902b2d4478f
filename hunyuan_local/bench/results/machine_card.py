"""The machine card: hardware, library versions and settings that results depend on, without host or user names.

Querying a GPU creates a CUDA context, which holds GPU memory until the process ends. The card is therefore collected
in the process that generates the videos, or in a separate one.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from ...backends.local.profile_choice import available_machine
from ...planner.host_memory import total_bytes
from ...provenance import library_versions, now

# Packages with kernels or quantization; provenance.library_versions has the others.
_OPTIONAL = ("triton", "torchao", "bitsandbytes", "flash-attn", "flash-attn-3", "sageattention", "xformers", "kernels")
# Entries that may change between an interruption and its resumption; all others must stay the same.
_VOLATILE = ("date", "available_gpu_bytes", "system")


def hardware_card() -> dict[str, Any]:
    """Hardware, library versions and the allocator's setting; sizes in bytes."""
    machine = available_machine()
    return {
        "date": now(),
        "gpu": None if machine.gpu_memory_bytes is None else _gpu(),
        "available_gpu_bytes": machine.gpu_memory_bytes,
        "cpu": {"model": _cpu_model(), "cores": os.cpu_count()},
        "host_memory_bytes": total_bytes(),
        "versions": library_versions() | _optional_versions(),
        "libraries": sorted(machine.libraries or ()),
        "allocator": os.environ.get("PYTORCH_ALLOC_CONF") or os.environ.get("PYTORCH_CUDA_ALLOC_CONF"),
    }


def machine_card() -> dict[str, Any]:
    """The :func:`hardware_card` with the operating system and the number of CPU threads."""
    from ...pipeline.memory.device import num_threads

    threads = {
        "torch": num_threads(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "cores_allowed": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
    }
    system = {"name": _system_name(), "kernel": f"{platform.system()} {platform.release()}"}
    return hardware_card() | {"system": system, "threads": threads}


def card_differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Differences between two cards in hardware, versions, allocator and threads, one line each."""
    old, new = _flat(before), _flat(after)
    return [
        f"{key}: {old.get(key)} then, {new.get(key)} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def _flat(card: dict[str, Any]) -> dict[str, Any]:
    """The entries that must stay the same, by dotted name."""
    facts: dict[str, Any] = {}
    for key, value in card.items():
        if key in _VOLATILE:
            continue
        facts |= {f"{key}.{name}": item for name, item in value.items()} if isinstance(value, dict) else {key: value}
    return facts


def _gpu() -> dict[str, Any]:
    from ...pipeline.memory.device import describe_gpu

    return describe_gpu() | {"driver": _ask_driver("driver_version"), "power_limit_w": _ask_driver("power.limit")}


def _ask_driver(field: str) -> str | None:
    """A field of the first GPU from nvidia-smi; None if nvidia-smi fails. All GPUs of a machine share the driver."""
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


def _system_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):  # not a Linux distribution
        return platform.system()


def _optional_versions() -> dict[str, str]:
    found = {}
    for name in _OPTIONAL:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
