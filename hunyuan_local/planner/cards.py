"""The GPUs that the planner knows, from ``configs/gpus.yaml``, and what stands for a GPU that it does not know.

Knows nothing about this machine or about models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any, Literal

import yaml

from ..config import GIB, configs_dir
from ..config.yaml_file import read_yaml
from ..errors import ConfigError

# How much slower and faster than its stand-in an unknown GPU may be: the limits of a laptop's, of a MIG slice of three
# sevenths, and of the next model up.
GUESS = (0.4, 1.4)
_MAKERS = re.compile(r"^(nvidia|amd|geforce|tesla|instinct|rtx)[\s-]+|^rtx(?=\d)", re.IGNORECASE)


@dataclass(frozen=True)
class Utilisation:
    """Share of a GPU's peak FLOP/s that each kind of work reaches."""

    flash: float
    flash2: float
    masked: float
    square: float
    matmul: float
    convolution: float


KINDS = tuple(item.name for item in fields(Utilisation))


@dataclass(frozen=True)
class Shares:
    """The shares of one generation of GPUs.

    Attributes:
        usual, lowest, highest: the assumed shares and their range.
        sources: where each kind's share comes from.
        least: lowest compute capability of the generation; None if it never stands for an unknown GPU.
    """

    usual: Utilisation
    lowest: Utilisation
    highest: Utilisation
    sources: Mapping[str, str] = field(hash=False)
    least: tuple[int, int] | None = None


@dataclass(frozen=True)
class GpuSpec:
    """One GPU model; ``configs/gpus.yaml`` describes each field.

    Attributes:
        utilisation: the assumed shares of the peak.
        compute_capability: None for GPUs of other makers than NVIDIA.
        stands_in: the GPU whose data these are, if this one is not known.
    """

    name: str
    title: str
    names: tuple[str, ...]
    memory_gib: float
    bf16_tflops: float
    bandwidth_gbs: float
    pcie_gbs: float
    shares: Shares
    source: str
    compute_capability: tuple[int, int] | None = None
    vendor: Literal["nvidia", "amd"] = "nvidia"
    nvlink_gbs: float = 0.0
    bf16_range: tuple[float, float] | None = None
    measured: bool = False
    usual: bool = False
    aliases: tuple[str, ...] = ()
    stands_in: str | None = None
    utilisation: Utilisation = Utilisation(0, 0, 0, 0, 0, 0)

    @property
    def memory_bytes(self) -> int:
        """The card's total memory as torch reports it."""
        return round(self.memory_gib * GIB)

    @property
    def slowest(self) -> GpuSpec:
        """The GPU at the lower end of every range."""
        return self._at(self.shares.lowest, 0)

    @property
    def fastest(self) -> GpuSpec:
        """The GPU at the upper end of every range."""
        return self._at(self.shares.highest, 1)

    def _at(self, utilisation: Utilisation, end: int) -> GpuSpec:
        tflops = self.bf16_tflops if self.bf16_range is None else self.bf16_range[end]
        factor = 1.0 if self.stands_in is None else GUESS[end]
        return replace(
            self, bf16_tflops=tflops * factor, bandwidth_gbs=self.bandwidth_gbs * factor, utilisation=utilisation
        )


def gpu_specs() -> tuple[GpuSpec, ...]:
    """All GPUs of ``configs/gpus.yaml``."""
    return _table()


def find_gpu(name: str) -> GpuSpec:
    """The GPU with this name, alias, or name in torch.

    Raises:
        ConfigError: unknown name; lists the known ones.
    """
    wanted = _plain(name)
    for spec in gpu_specs():
        if wanted in map(_plain, (spec.name, *spec.aliases, *spec.names)):
            return spec
    known = ", ".join(spec.name for spec in gpu_specs())
    raise ConfigError(f"gpu={name!r}: unknown GPU; use one of {known}, or give only its memory (--gpu-memory 24GiB)")


def recognise(
    name: str, memory_bytes: int, capability: tuple[int, int], vendor: Literal["nvidia", "amd"] = "nvidia"
) -> GpuSpec | None:
    """The data of a GPU that torch calls ``name``.

    Only an equal name is the same GPU. Another one gets the data of the GPU of its generation with the closest memory,
    which ``stands_in`` names; None if there is none.

    Args:
        memory_bytes: its total memory.
        capability: compute capability; ignored for GPUs of other makers than NVIDIA.
    """
    known = capability if vendor == "nvidia" else None
    for spec in gpu_specs():
        if spec.vendor == vendor and _plain(name) in map(_plain, spec.names):
            return replace(spec, title=name, memory_gib=memory_bytes / GIB, compute_capability=known)
    like = _closest(memory_bytes, known, vendor)
    if like is None:
        return None
    return replace(
        like, name=_plain(name), title=name, names=(), aliases=(), memory_gib=memory_bytes / GIB, nvlink_gbs=0.0,
        compute_capability=known, measured=False, usual=False, stands_in=like.title,
    )  # fmt: skip


def _closest(memory_bytes: int, capability: tuple[int, int] | None, vendor: str) -> GpuSpec | None:
    """The GPU with the closest memory, of the newest known generation that is not newer than ``capability``."""
    own = [spec for spec in gpu_specs() if spec.vendor == vendor]
    if capability is not None:
        leasts = {spec.shares.least for spec in own if spec.shares.least is not None}
        least = max((item for item in leasts if item <= capability), default=min(leasts))
        own = [spec for spec in own if spec.shares.least == least and spec.bf16_tflops]
    return min(own, key=lambda spec: abs(spec.memory_bytes - memory_bytes), default=None)


def _plain(name: str) -> str:
    """A GPU's name in lower case with dashes, without its maker and series."""
    while (shorter := _MAKERS.sub("", name.strip(), count=1)) != name.strip():
        name = shorter
    return re.sub(r"[\s-]+", "-", name.strip().lower())


@cache
def _table() -> tuple[GpuSpec, ...]:
    path = configs_dir() / "gpus.yaml"
    try:
        content: dict[str, Any] = read_yaml(path)
        shares = {name: _shares(item) for name, item in content["shares"].items()}
        return tuple(_spec(item, shares) for item in content["gpus"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as a table of GPUs: {error}; reinstall the package") from error


def _spec(item: dict[str, Any], shares: Mapping[str, Shares]) -> GpuSpec:
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in item.items()}
    own = shares[values.pop("shares")]
    return GpuSpec(**values, shares=own, utilisation=own.usual)


def _shares(item: dict[str, Any]) -> Shares:
    for kind in KINDS:
        low, high = item[kind]["range"]
        if not 0 < low <= item[kind]["share"] <= high <= 1:
            raise ValueError(f"{kind}: range={[low, high]}: must be ascending, contain the share, and be within 0 to 1")
    least = item.get("least")
    return Shares(
        usual=Utilisation(**{kind: item[kind]["share"] for kind in KINDS}),
        lowest=Utilisation(**{kind: item[kind]["range"][0] for kind in KINDS}),
        highest=Utilisation(**{kind: item[kind]["range"][1] for kind in KINDS}),
        sources={kind: item[kind]["source"] for kind in KINDS},
        least=None if least is None else tuple(least),
    )
