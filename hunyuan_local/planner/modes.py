"""The modes that a plan compares, and which of them a machine cannot run.

A mode is a choice of offload, of the transformer's precision and of tiling. Knows nothing about memory and time.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

from ..config import Quantization
from ..config.quantization import dotted
from .machine import Machine
from .quantization import METHODS, Method

Offload = Literal["none", "model", "group", "sequential"]
OFFLOADS: tuple[Offload, ...] = ("none", "model", "group", "sequential")
# One of each kind; the other methods need about as much memory as one of these, and are used only on request.
WEIGHED: tuple[Quantization | None, ...] = (None, "fp8", "int8", "nf4")
DTYPES = {
    "cuda": {"transformer": "bfloat16", "vae": "float16", "text_encoder": "float16", "text_encoder_2": "float16"},
    "cpu": {"transformer": "float32", "vae": "float32", "text_encoder": "float32", "text_encoder_2": "float32"},
}


@dataclass(frozen=True)
class Mode:
    """One way to run the model.

    Attributes:
        offload: ``none`` keeps all components on the GPU; ``model`` moves one there at a time; ``group`` streams the
            transformer and the Llama encoder block by block, and moves the two small components as wholes;
            ``sequential`` moves one layer at a time.
        quantization: how the transformer's weights are stored; None for the profile's precision.
        vae_tiling: whether to decode in spatial tiles.
    """

    offload: Offload = "none"
    quantization: Quantization | None = None
    vae_tiling: bool = True

    @property
    def name(self) -> str:
        """For example ``model+nf4+tiling``."""
        parts = [self.offload, self.quantization, "tiling" if self.vae_tiling else None]
        return "+".join(part for part in parts if part)

    @property
    def method(self) -> Method:
        """How the transformer's weights are stored and multiplied."""
        return METHODS[self.quantization]


def all_modes() -> list[Mode]:
    """All compared combinations, plainest first."""
    return [
        Mode(offload, quantization, tiling)
        for offload, quantization, tiling in itertools.product(OFFLOADS, WEIGHED, (False, True))
    ]


def why_impossible(mode: Mode, machine: Machine, method: Method | None = None) -> str | None:
    """Why a machine cannot run a mode, regardless of its memory; None if it can."""
    method = method or mode.method
    if machine.device == "cpu" and mode.offload != "none":
        return "offload needs a CUDA device"
    capability = None if machine.gpu is None else machine.gpu.compute_capability
    if capability is not None and capability < (8, 0):
        return (
            f"compute capability {dotted(capability)} has no bfloat16, which the transformer needs "
            "(float16 gives black videos)"
        )
    return method.needs.why_not(machine.device, capability, mode.offload, machine.libraries)
