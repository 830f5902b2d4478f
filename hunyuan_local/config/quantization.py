"""Requirements of each quantization of the transformer: one table for the loader and the planner.

This module knows nothing about sizes in bytes and imports none of the libraries.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection
from dataclasses import dataclass

from .profiles import Dtype, Offload, Quantization

INSTALL = "pip install 'hunyuan-local[quant]'"


@dataclass(frozen=True)
class Needs:
    """Requirements of one quantization.

    Attributes:
        title: number format and library.
        library: required package, if any.
        needs_cuda: whether it requires a CUDA device.
        min_capability: minimum CUDA compute capability.
        compiled_capability: minimum compute capability for compiled blocks.
        offloads: supported kinds of offload.
        to_disk: whether group offload can keep the weights in files.
        unstreamed: whether group offload works without a stream.
        dtypes: supported precisions of the transformer's other tensors.
        wants_compile: whether products round their inputs, in separate passes over all tokens unless they are compiled.
    """

    title: str
    library: str | None = None
    needs_cuda: bool = False
    min_capability: tuple[int, int] = (0, 0)
    compiled_capability: tuple[int, int] = (0, 0)
    offloads: tuple[Offload, ...] = ("none", "model", "group", "sequential")
    to_disk: bool = True
    unstreamed: bool = True
    dtypes: tuple[Dtype, ...] = ("float32", "bfloat16")
    wants_compile: bool = False

    def why_not(
        self,
        device: str,
        capability: tuple[int, int] | None,
        offload: Offload = "none",
        libraries: Collection[str] | None = None,
        *,
        dtype: str | None = None,
        compiled: bool = False,
        to_disk: bool = False,
        streamed: bool = True,
    ) -> str | None:
        """Return why the quantization cannot be used in this way, or None if it can.

        Args:
            device: ``cpu`` or ``cuda``.
            capability: compute capability of the CUDA device; None if unknown, which skips the check.
            offload: kind of offload.
            libraries: installed optional packages; None if unknown, which skips the check.
            dtype: the transformer's precision; None if unknown, which skips the check.
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
        if dtype is not None and dtype not in self.dtypes:
            return f"{self.title} needs dtypes.transformer: {' or '.join(self.dtypes)}, not {dtype}"
        if libraries is not None and self.library is not None and self.library not in libraries:
            return f"{self.library} is not installed ({INSTALL})"
        if offload not in self.offloads:
            return f"{self.title} does not support {offload} offload, only {', '.join(self.offloads)}"
        if offload == "group" and to_disk and not self.to_disk:
            return f"{self.title} cannot be kept in files: group.to_disk must be false"
        if offload == "group" and not streamed and not self.unstreamed:
            return f"{self.title} cannot be moved without a stream: group.stream must be true"
        return None


_ALL_BUT_SEQUENTIAL: tuple[Offload, ...] = ("none", "model", "group")
# Triton, which compiles for CUDA, supports float8_e4m3fn from compute capability 8.9 (pytorch #167082).
_TRITON_FLOAT8 = (8, 9)
# Group offload to disk in diffusers writes safetensors files, which cannot store torchao's tensor classes
# (ModuleGroup._check_disk_offload_torchao). The other kinds of offload work; tests move weights within main memory.
NEEDS: dict[Quantization, Needs] = {
    "fp8": Needs("float8 storage (diffusers' layerwise casting)", compiled_capability=_TRITON_FLOAT8),
    "fp8-weights": Needs("float8 weights (torchao)", "torchao", compiled_capability=_TRITON_FLOAT8, to_disk=False),
    # torchao.float8.inference._check_hardware_support: float8 matrix multiplication needs compute capability 8.9.
    # Its scales by row need bfloat16 (_float8_dynamic_activation_float8_weight_quantize_tensor).
    "fp8-dynamic": Needs(
        "dynamic float8 (torchao)",
        "torchao",
        needs_cuda=True,
        min_capability=(8, 9),
        to_disk=False,
        dtypes=("bfloat16",),
        wants_compile=True,
    ),
    "int8": Needs("int8 weights (torchao)", "torchao", to_disk=False),
    "int8-dynamic": Needs("dynamic int8 (torchao)", "torchao", to_disk=False, wants_compile=True),
    # bitsandbytes itself runs on a CPU, but its loader in diffusers refuses to ("No GPU found"). The scales are stored
    # outside the tensor, where accelerate's per-layer hooks miss them (diffusers #10800, bitsandbytes #1525).
    # Without a stream, group offload moves the scales off the GPU and never moves them back.
    "nf4": Needs("nf4 (bitsandbytes)", "bitsandbytes", needs_cuda=True, offloads=_ALL_BUT_SEQUENTIAL, unstreamed=False),
    # After the first forward pass, ``Linear8bitLt.state`` also references the weights and does not move with them, so
    # they stay on the GPU. With offload ``model``, only the other components move.
    "llm-int8": Needs("LLM.int8 (bitsandbytes)", "bitsandbytes", needs_cuda=True, offloads=("none", "model")),
}
# accelerate recreates a moved tensor without its quantization type (diffusers #14691).
GGUF_NEEDS = Needs("a GGUF file", "gguf", offloads=_ALL_BUT_SEQUENTIAL)


def warning(method: Quantization | None, device: str, *, compiled: bool) -> str | None:
    """What a user of this quantization on this device should know before it runs; None if nothing."""
    if method is None or compiled or device == "cpu" or not NEEDS[method].wants_compile:
        return None
    return (
        f"quantization={method!r} without compile: the input of each layer is rounded in several passes over all "
        "tokens, which can take longer than the faster products save; set compile: true in the profile, or use "
        "quantization: fp8"
    )


def installed_libraries() -> frozenset[str]:
    """The optional packages that are installed, found without importing them."""
    names = {needs.library for needs in (*NEEDS.values(), GGUF_NEEDS) if needs.library is not None}
    return frozenset(name for name in names if importlib.util.find_spec(name) is not None)


def dotted(capability: tuple[int, int]) -> str:
    """Format a compute capability as NVIDIA does, such as ``8.9``."""
    return f"{capability[0]}.{capability[1]}"
