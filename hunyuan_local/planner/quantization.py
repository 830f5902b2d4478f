"""How weights are stored and multiplied: full precision, and each library's ways to make them smaller.

A method says how many bytes a layer takes, what lies beside it while it is multiplied, and where it
can run and be moved. Knows nothing about whole models.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from .architecture import Layer
from .trace import Trace

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
Quantization = Literal["fp8", "int8", "nf4"]


@dataclass(frozen=True)
class Method:
    """Full precision; the base of the others.

    Attributes:
        name: what is quantised to, and by which library.
        library: the package that it needs, if any.
        skip: patterns of layer names that stay in full precision.
        needs_cuda: whether it runs on CUDA devices alone.
        min_capability: the least CUDA compute capability that it runs on.
        movable: whether model offload can take the weights off the GPU.
        offloads: the kinds of offload that it works with.
        quantized_on_gpu: whether the weights go to the GPU as they are read, without stopping on the host;
            else they are read there in full precision first.
        matmul_speed: how many times as fast as bfloat16 the tensor cores multiply.
    """

    name: str = "full precision"
    library: str | None = None
    skip: tuple[str, ...] = ()
    needs_cuda: bool = False
    min_capability: tuple[int, int] = (0, 0)
    movable: bool = True
    offloads: tuple[str, ...] = ("none", "model", "group", "sequential")
    quantized_on_gpu: bool = False
    matmul_speed: float = 1.0

    def quantizes(self, layer: Layer) -> bool:
        """Whether a layer's weight is stored in fewer bits."""
        return layer.kind == "linear" and not any(re.search(pattern, layer.name) for pattern in self.skip)

    def layer_tensors(self, layer: Layer, dtype: str) -> list[int]:
        """Bytes of each tensor that a layer keeps."""
        each = DTYPE_BYTES[dtype]
        rest = [layer.rest * each] if layer.rest else []
        return [*(self.weight_tensors(layer, each) if self.quantizes(layer) else [layer.weight * each]), *rest]

    def weight_tensors(self, layer: Layer, each: int) -> list[int]:
        """Bytes of each tensor that a quantised weight keeps; ``each`` is that of a full element."""
        return [layer.weight * each]

    def grown_by(self, layers: tuple[Layer, ...]) -> int:
        """Bytes that the layers keep in addition once they have run."""
        return 0

    def multiply(self, trace: Trace, name: str, rows: int, inner: int, columns: int, each: int) -> None:
        """Trace ``F.linear`` with bias on [rows, inner]: the output is made as ``name``."""
        trace.matmul(rows, inner, columns)
        trace.make(name, rows * columns * each, moves=False)


@dataclass(frozen=True)
class LayerwiseCasting(Method):
    """diffusers' ``enable_layerwise_casting``: stored in float8, cast to bfloat16 around each layer's forward."""

    def weight_tensors(self, layer: Layer, each: int) -> list[int]:
        """See :meth:`Method.weight_tensors`."""
        return [layer.weight]

    def layer_tensors(self, layer: Layer, dtype: str) -> list[int]:
        """See :meth:`Method.layer_tensors`; the hook casts the bias too, and convolutions that are not skipped."""
        if layer.kind in ("linear", "conv") and not any(re.search(pattern, layer.name) for pattern in self.skip):
            return [size for size in (layer.weight, layer.rest) if size]
        return super().layer_tensors(layer, dtype)

    def multiply(self, trace: Trace, name: str, rows: int, inner: int, columns: int, each: int) -> None:
        """See :meth:`Method.multiply`; ``module.to(bfloat16)`` before, ``module.to(float8)`` after."""
        trace.make("cast weight", inner * columns * each)
        super().multiply(trace, name, rows, inner, columns, each)
        trace.drop("cast weight")


@dataclass(frozen=True)
class DynamicFloat8(Method):
    """torchao's ``Float8DynamicActivationFloat8WeightConfig`` in compiled blocks: both factors in float8."""

    def weight_tensors(self, layer: Layer, each: int) -> list[int]:
        """See :meth:`Method.weight_tensors`; one float32 scale for the whole weight."""
        return [layer.weight, 4]

    def multiply(self, trace: Trace, name: str, rows: int, inner: int, columns: int, each: int) -> None:
        """See :meth:`Method.multiply`; compiled, only the rounded input is written out."""
        trace.make("float8 input", rows * inner)
        super().multiply(trace, name, rows, inner, columns, each)
        trace.drop("float8 input")


@dataclass(frozen=True)
class WeightOnlyInt8(Method):
    """torchao's ``Int8WeightOnlyConfig``: int8 with a float32 scale a row, turned into bfloat16 for each product."""

    def weight_tensors(self, layer: Layer, each: int) -> list[int]:
        """See :meth:`Method.weight_tensors`."""
        return [layer.weight, layer.out * 4]

    def multiply(self, trace: Trace, name: str, rows: int, inner: int, columns: int, each: int) -> None:
        """See :meth:`Method.multiply`; ``Int8Tensor``: mm with the cast weight, times the scales, plus the bias."""
        trace.make("cast weight", inner * columns * each)
        super().multiply(trace, "unscaled output", rows, inner, columns, each)
        trace.drop("cast weight")
        trace.make(name, rows * columns * each)
        trace.drop("unscaled output")


@dataclass(frozen=True)
class BlockFloat4(Method):
    """bitsandbytes' nf4: 4 bits an element and a float32 scale for every 64, turned into bfloat16 for each product."""

    def weight_tensors(self, layer: Layer, each: int) -> list[int]:
        """See :meth:`Method.weight_tensors`; no double quantisation."""
        return [-(-layer.weight // 2), -(-layer.weight // 64) * 4]

    def multiply(self, trace: Trace, name: str, rows: int, inner: int, columns: int, each: int) -> None:
        """See :meth:`Method.multiply`; ``MatMul4Bit.forward``: ``F.linear`` with ``dequantize_4bit(weight)``."""
        trace.make("dequantised weight", inner * columns * each)
        super().multiply(trace, name, rows, inner, columns, each)
        trace.drop("dequantised weight")


@dataclass(frozen=True)
class LlmInt8(Method):
    """bitsandbytes' LLM.int8 (``MatMul8bitLt``): int8 products, and columns with outliers in full precision.

    ``outliers`` is how many columns of a layer's input hold a number of 6 or more: it depends on the
    prompts and cannot be told from a configuration. bitsandbytes keeps those columns of each weight
    in full precision from the first step on.
    """

    outliers: int = 280

    def weight_tensors(self, layer: Layer, each: int) -> list[int]:
        """See :meth:`Method.weight_tensors`; a float32 scale a row (SCB)."""
        return [layer.weight, layer.out * 4]

    def grown_by(self, layers: tuple[Layer, ...]) -> int:
        """See :meth:`Method.grown_by`; ``state.subB``, [outliers, out] a layer."""
        return sum(
            min(self.outliers, layer.weight // layer.out) * layer.out * 2 for layer in layers if self.quantizes(layer)
        )

    def multiply(self, trace: Trace, name: str, rows: int, inner: int, columns: int, each: int) -> None:
        """See :meth:`Method.multiply`; the names are those of ``bitsandbytes.autograd._functions``."""
        # int8_vectorwise_quant(A.to(float16)): `outliers = A.abs() >= threshold` makes two more copies.
        trace.make("A.to(float16)", rows * inner * 2)
        trace.make("CA", rows * inner)
        trace.make("A.abs()", rows * inner * 2)
        trace.make("outliers", rows * inner)
        trace.drop("A.abs()", "A.to(float16)", "outliers")
        # int8_linear_matmul gives int32, int8_mm_dequant float16, which is cast to the input's precision.
        trace.matmul(rows, inner, columns)
        trace.make("out32", rows * columns * 4, moves=False)
        trace.make("dequantised", rows * columns * 2)
        trace.make("output", rows * columns * each)
        trace.drop("dequantised")
        # output.addmm(subA, subB) is a new tensor.
        trace.make(name, rows * columns * each)
        trace.drop("output", "out32", "CA")


FULL = Method()
# DEFAULT_SKIP_MODULES_PATTERN of diffusers and the transformer's own _skip_layerwise_casting_patterns.
_FLOAT8_SKIP = ("norm", "^proj_out$", "x_embedder", "context_embedder")
_ALL_BUT_SEQUENTIAL = ("none", "model", "group")
FP8_STORAGE = LayerwiseCasting(name="float8 storage (diffusers' layerwise casting)", skip=_FLOAT8_SKIP)
FP8_DYNAMIC = DynamicFloat8(
    name="dynamic float8 (torchao)",
    library="torchao",
    needs_cuda=True,
    min_capability=(8, 9),
    offloads=_ALL_BUT_SEQUENTIAL,
    matmul_speed=2.0,
)
INT8_WEIGHT_ONLY = WeightOnlyInt8(name="int8 weights (torchao)", library="torchao")
NF4 = BlockFloat4(
    name="nf4 (bitsandbytes)",
    library="bitsandbytes",
    needs_cuda=True,
    offloads=_ALL_BUT_SEQUENTIAL,
    quantized_on_gpu=True,
)
# diffusers leaves 8-bit modules of bitsandbytes before 0.48 out of model offload.
LLM_INT8 = LlmInt8(
    name="LLM.int8 (bitsandbytes)",
    library="bitsandbytes",
    needs_cuda=True,
    movable=False,
    offloads=("none", "model"),
    quantized_on_gpu=True,
)
# What each word of a profile means in this package.
METHODS: dict[Quantization | None, Method] = {None: FULL, "fp8": FP8_STORAGE, "int8": INT8_WEIGHT_ONLY, "nf4": NF4}
