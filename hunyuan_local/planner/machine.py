"""The machine to plan for: its memory, and the data of its GPU.

GPUs are listed in ``configs/gpus.yaml``. Knows nothing about models.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from ..config import GIB, configs_dir
from ..config.quantization import installed_libraries
from ..errors import ConfigError

_UNITS = {"b": 1, "kib": 2**10, "mib": 2**20, "gib": GIB, "tib": 2**40, "mb": 10**6, "gb": 10**9, "tb": 10**12}
# float32 FLOP/s per core, as the built-in model reached on a shared server.
CPU_CORE_FLOPS = 10e9


@dataclass(frozen=True)
class Utilisation:
    """Share of a GPU's peak FLOP/s that each kind of work reaches; ``source`` is where the numbers come from."""

    flash: float
    flash2: float
    masked: float
    square: float
    matmul: float
    convolution: float
    source: str


@dataclass(frozen=True)
class GpuSpec:
    """One GPU model; ``configs/gpus.yaml`` describes each field."""

    name: str
    title: str
    match: tuple[str, ...]
    memory_gib: float
    bf16_tflops: float
    bandwidth_gbs: float
    pcie_gbs: float
    compute_capability: tuple[int, int]
    source: str
    nvlink_gbs: float = 0.0
    aliases: tuple[str, ...] = ()

    @property
    def memory_bytes(self) -> int:
        """The card's total memory as torch reports it."""
        return round(self.memory_gib * GIB)

    @property
    def utilisation(self) -> Utilisation:
        """Shares of its peak for this GPU: the newest generation in the table that is not newer than it."""
        table = _table()[1]
        fitting = [(least, shares) for least, shares in table if least <= self.compute_capability]
        return max(fitting or [min(table, key=lambda item: item[0])], key=lambda item: item[0])[1]


@dataclass(frozen=True)
class Machine:
    """The machine that generates the video.

    Attributes:
        gpu_memory_bytes: total memory of the GPU as torch reports it; None plans for the CPU.
        host_memory_bytes: main memory; None if unknown, which skips the check.
        gpu: the GPU model; None if only its memory is known.
        libraries: installed optional packages; None if unknown, which assumes that all are installed.
    """

    gpu_memory_bytes: int | None
    host_memory_bytes: int | None
    gpu: GpuSpec | None = None
    libraries: frozenset[str] | None = None

    @property
    def device(self) -> Literal["cuda", "cpu"]:
        """``cuda`` or ``cpu``."""
        return "cpu" if self.gpu_memory_bytes is None else "cuda"

    @property
    def reference(self) -> GpuSpec | None:
        """The GPU whose speed to assume: the machine's, or if unknown, a common one with the closest memory."""
        memory = self.gpu_memory_bytes
        if self.gpu is not None or memory is None:
            return self.gpu
        usual = [spec for spec in gpu_specs() if spec.name in ("3060", "4080", "4090", "5090", "l40s", "h100", "h200")]
        return min(usual, key=lambda spec: abs(spec.memory_bytes - memory))


def gpu_specs() -> tuple[GpuSpec, ...]:
    """All GPUs of ``configs/gpus.yaml``."""
    return _table()[0]


def find_gpu(name: str) -> GpuSpec:
    """The GPU with this name or alias.

    Raises:
        ConfigError: unknown name; lists the known ones.
    """
    wanted = re.sub(r"^(nvidia|geforce|rtx|[ -])+", "", name.lower()).replace(" ", "-")
    for spec in gpu_specs():
        if wanted in (spec.name, *spec.aliases):
            return spec
    known = ", ".join(spec.name for spec in gpu_specs())
    raise ConfigError(f"gpu={name!r}: unknown GPU; use one of {known}, or give only its memory (--gpu-memory 24GiB)")


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
    """This machine: its first visible GPU if there is one, and its memory."""
    host = host_memory_bytes()
    libraries = installed_libraries()
    if not has_cuda_driver():
        return Machine(None, host, libraries=libraries)
    from ..pipeline.memory.device import cuda_devices

    devices = cuda_devices()
    if not devices:
        return Machine(None, host, libraries=libraries)
    first = devices[0]
    return Machine(first.memory_bytes, host, recognise(first.name, first.memory_bytes, first.capability), libraries)


def recognise(name: str, memory_bytes: int, capability: tuple[int, int]) -> GpuSpec | None:
    """The data of a GPU that torch calls ``name``; None if it is not in the table."""
    # The longest match wins: "H100 PCIe" before "H100".
    found = [
        (len(text), spec) for spec in gpu_specs() for text in spec.match if re.search(rf"\b{re.escape(text)}\b", name)
    ]
    if not found:
        return None
    spec = max(found, key=lambda item: item[0])[1]
    # PCIe cards have NVLink only with a bridge between two cards, bought separately.
    nvlink = 0.0 if "PCIE" in name.upper() else spec.nvlink_gbs
    return dataclasses.replace(
        spec, title=name, memory_gib=memory_bytes / GIB, compute_capability=capability, nvlink_gbs=nvlink
    )


def host_memory_bytes() -> int | None:
    """Main memory of this machine, or the container's limit if that is lower; None if neither is known."""
    found = []
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        limit = Path(path)
        if limit.is_file() and (text := limit.read_text().strip()).isdigit():
            found.append(int(text))
    return min(found, default=None)


def has_cuda_driver() -> bool:
    """Whether NVIDIA's driver is installed; saves importing torch if not."""
    try:
        ctypes.CDLL("libcuda.so.1" if os.name == "posix" else "nvcuda.dll")
    except OSError:
        return False
    return True


@cache
def _table() -> tuple[tuple[GpuSpec, ...], tuple[tuple[tuple[int, int], Utilisation], ...]]:
    path = configs_dir() / "gpus.yaml"
    try:
        content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
        gpus = tuple(GpuSpec(**{key: _without_lists(value) for key, value in item.items()}) for item in content["gpus"])
        shares = tuple(
            (tuple(item["from"]), Utilisation(**{key: value for key, value in item.items() if key != "from"}))
            for item in content["utilisation"]
        )
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: cannot be read as a table of GPUs: {error}; reinstall the package") from error
    return gpus, shares


def _without_lists(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
