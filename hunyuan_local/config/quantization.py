"""What each way to quantise the transformer asks of a machine: one table for the loader and the planner.

Knows nothing about bytes, and imports none of the libraries.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection
from dataclasses import dataclass

from .profiles import Offload, Quantization

INSTALL = "pip install 'hunyuan-local[quant]'"


@dataclass(frozen=True)
class Needs:
    """What a way to store and multiply weights asks for.

    Attributes:
        title: what is quantised to, and by which library.
        library: the package that it needs, if any.
        needs_cuda: whether it runs on CUDA devices alone.
        min_capability: the least CUDA compute capability that it runs on.
        compiled_capability: the least one on which blocks that hold it can be compiled.
        offloads: the kinds of offload that it works with.
        to_disk: whether group offload can keep it in files.
        unstreamed: whether group offload can move it without a stream.
    """

    title: str
    library: str | None = None
    needs_cuda: bool = False
    min_capability: tuple[int, int] = (0, 0)
    compiled_capability: tuple[int, int] = (0, 0)
    offloads: tuple[Offload, ...] = ("none", "model", "group", "sequential")
    to_disk: bool = True
    unstreamed: bool = True

    def why_not(
        self,
        device: str,
        capability: tuple[int, int] | None,
        offload: Offload = "none",
        libraries: Collection[str] | None = None,
        *,
        compiled: bool = False,
        to_disk: bool = False,
        streamed: bool = True,
    ) -> str | None:
        """Why it cannot be used like this, or None if it can.

        Args:
            device: ``cpu`` or ``cuda``.
            capability: compute capability of the CUDA device; None is not known, and then not checked.
            offload: how the weights are moved.
            libraries: the optional packages that are installed; None is not known, and then not checked.
            compiled: whether the transformer's blocks are compiled.
            to_disk: whether group offload keeps the weights in files.
            streamed: whether group offload uses a stream.
        """
        if device == "cpu" and self.needs_cuda:
            return f"{self.title} needs a CUDA device"
        if device != "cpu" and capability is not None:
            least = max(self.min_capability, self.compiled_capability if compiled else (0, 0))
            if capability < least:
                what = "" if least == self.min_capability else " in compiled blocks"
                return f"{self.title}{what} needs compute capability {dotted(least)}, this GPU has {dotted(capability)}"
        if libraries is not None and self.library is not None and self.library not in libraries:
            return f"{self.library} is not installed ({INSTALL})"
        if offload not in self.offloads:
            return f"{self.title} cannot be moved by {offload} offload, only with {', '.join(self.offloads)}"
        if offload == "group" and to_disk and not self.to_disk:
            return f"{self.title} cannot be kept in files: group.to_disk must be false"
        if offload == "group" and not streamed and not self.unstreamed:
            return f"{self.title} cannot be moved without a stream: group.stream must be true"
        return None


_ALL_BUT_SEQUENTIAL: tuple[Offload, ...] = ("none", "model", "group")
# Triton, which compiles for CUDA, converts float8_e4m3fn from 8.9 on (pytorch #167082).
_TRITON_FLOAT8 = (8, 9)
# What the group offload of diffusers keeps in files are safetensors, which hold no tensors of torchao's classes
# (ModuleGroup._check_disk_offload_torchao). All else is moved: tests do it from main memory to main memory.
NEEDS: dict[Quantization, Needs] = {
    "fp8": Needs("float8 storage (diffusers' layerwise casting)", compiled_capability=_TRITON_FLOAT8),
    "fp8-weights": Needs("float8 weights (torchao)", "torchao", compiled_capability=_TRITON_FLOAT8, to_disk=False),
    # torchao.float8.inference._check_hardware_support: the product of float8 factors is an instruction from 8.9 on.
    "fp8-dynamic": Needs("dynamic float8 (torchao)", "torchao", needs_cuda=True, min_capability=(8, 9), to_disk=False),
    "int8": Needs("int8 weights (torchao)", "torchao", to_disk=False),
    "int8-dynamic": Needs("dynamic int8 (torchao)", "torchao", to_disk=False),
    # bitsandbytes itself runs on a CPU, but its loader in diffusers refuses to ("No GPU found"). The scales lie beside
    # the tensor, where accelerate's hooks of single layers do not find them (diffusers #10800, bitsandbytes #1525).
    # Without a stream, group offload takes the scales off the GPU and does not bring them back.
    "nf4": Needs("nf4 (bitsandbytes)", "bitsandbytes", needs_cuda=True, offloads=_ALL_BUT_SEQUENTIAL, unstreamed=False),
    # From the first product on, the weights are also held by ``Linear8bitLt.state``, which does not follow them: what
    # has once run stays on the GPU. With offload ``model`` the other components are moved, and it is not.
    "llm-int8": Needs("LLM.int8 (bitsandbytes)", "bitsandbytes", needs_cuda=True, offloads=("none", "model")),
}
# accelerate makes a moved tensor anew without saying how it is quantised (diffusers #14691).
GGUF_NEEDS = Needs("a GGUF file", "gguf", offloads=_ALL_BUT_SEQUENTIAL)


def installed_libraries() -> frozenset[str]:
    """Those of the optional packages that are installed here; none is imported."""
    names = {needs.library for needs in (*NEEDS.values(), GGUF_NEEDS) if needs.library is not None}
    return frozenset(name for name in names if importlib.util.find_spec(name) is not None)


def dotted(capability: tuple[int, int]) -> str:
    """A compute capability as NVIDIA writes it, such as ``8.9``."""
    return f"{capability[0]}.{capability[1]}"
