"""How weights are stored and multiplied: full precision, and each library's quantization methods.

A method defines the bytes of a stored layer, and the temporary tensors of a product. For a weight with n = in * out
elements: bfloat16 takes 2n bytes; float8 and int8 n, plus their scales; nf4 n/2 + 4n/64. Where a method can run
is in ``hunyuan_local.config.quantization``. Knows nothing about whole models.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from ..config import Quantization
from ..config.quantization import NEEDS, Needs
from .architecture import Layer
from .trace import Trace

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_FULL_PRECISION = Needs("full precision")


@dataclass(frozen=True)
class Method:
    """Full precision; the base class of the other methods.

    Attributes:
        needs: its name, and its requirements on a machine.
        skip: patterns of layer names that stay in full precision.
        movable: whether model offload can move the weights off the GPU.
        quantized_on_gpu: whether weights are read directly to the GPU and quantized there; otherwise they are first
            read to the host in full precision.
        quantizing_bytes: temporary bytes per element of a layer while it is quantized on the device.
        matmul_speed: speed of tensor-core products relative to bfloat16.
    """

    needs: Needs = _FULL_PRECISION
    skip: tuple[str, ...] = ()
    movable: bool = True
    quantized_on_gpu: bool = False
    quantizing_bytes: int = 0
    matmul_speed: float = 1.0

    @property
    def name(self) -> str:
        """Data type and library."""
        return self.needs.title

    def quantizes(self, layer: Layer) -> bool:
        """Whether a layer's weight is quantized."""
        return layer.kind == "linear" and not any(re.search(pattern, layer.name) for pattern in self.skip)

    def layer_tensors(self, layer: Layer, dtype: str) -> list[int]:
        """Bytes of each tensor that a layer stores."""
        each = DTYPE_BYTES[dtype]
        rest = [layer.rest * each] if layer.rest else []
        return [*(self.weight_tensors(layer, each) if self.quantizes(layer) else [layer.weight * each]), *rest]

    def weight_tensors(self, layer: Layer, each: int) -> list[int]:
        """Bytes of each tensor of a quantized weight; ``each``: bytes per element in full precision."""
        return [layer.weight * each]

    def grown_by(self, layers: tuple[Layer, ...]) -> int:
        """Bytes that the layers store in addition after the first run."""
        return 0

    def multiply(self, trace: Trace, name: str, rows: int, inner: int, columns: int, each: int) -> None:
        """Trace ``F.linear`` with bias on [rows, inner]; the output [rows, columns] is named ``name``."""
        trace.matmul(rows, inner, columns)
        trace.make(name, rows * columns * each, moves=False)


@dataclass(frozen=True)
class LayerwiseCasting(Method):
    """diffusers' ``enable_layerwise_casting``: stored in float8, cast to bfloat16 for each layer's forward."""

    def weight_tensors(self, layer: Layer, each: int) -> list[int]:
        """One byte per element."""
        return [layer.weight]

    def layer_tensors(self, layer: Layer, dtype: str) -> list[int]:
        """The hook also casts biases, and convolutions that are not skipped: one byte per element."""
        if layer.kind in ("linear", "conv") and not any(re.search(pattern, layer.name) for pattern in self.skip):
            return [size for size in (layer.weight, layer.rest) if size]
        return super().layer_tensors(layer, dtype)

    def multiply(self, trace: Trace, name: str, rows: int, inner: int, columns: int, each: int) -> None:
        """``module.to(bfloat16)`` before the product, ``module.to(float8)`` after."""
        trace.make("cast weight", inner * columns * each)
        super().multiply(trace, name, rows, inner, columns, each)
        trace.drop("cast weight")


@dataclass(frozen=True)
class WeightOnlyFloat8(Method):
    """torchao's ``Float8WeightOnlyConfig``: float8 with a float32 scale per row, converted to bfloat16 per product."""

    def weight_tensors(self, layer: Layer, each: int) -> list[int]:
        """Weight and row scales."""
        return [layer.weight, layer.out * 4]

    def multiply(self, trace: Trace, name: str, rows: int, inner: int, columns: int, each: int) -> None:
        """``_dequantize_affine_float8``, then the product, then the bias."""
        trace.make("weight in float32", inner * columns * 4)
        trace.make("scaled weight", inner * columns * 4)
        trace.make("dequantized weight", inner * columns * each)
        trace.drop("weight in float32", "scaled weight")
        super().multiply(trace, "output without bias", rows, inner, columns, each)
        trace.drop("dequantized weight")
        trace.make(name, rows * columns * each)
        trace.drop("output without bias")


@dataclass(frozen=True)
class DynamicFloat8(Method):
    """torchao's ``Float8DynamicActivationFloat8WeightConfig``: in float8, with one scale or one per row."""

    by_row: bool = False

    def weight_tensors(self, layer: Layer, each: int) -> list[int]:
        """The weight, and float32 scales: one for all of it, or one per row."""
        return [layer.weight, 4 * (layer.out if self.by_row else 1)]

    def multiply(self, trace: Trace, name: str, rows: int, inner: int, columns: int, each: int) -> None:
        """``_quantize_affine_float8`` of the input, then the product. Compiled blocks need fewer tensors."""
        steps = ("input in float32", "scaled input", "clamped input")
        for step in steps:
            trace.make(step, rows * inner * 4)
        trace.make("quantized input", rows * inner)
        trace.drop(*steps)
        super().multiply(trace, name, rows, inner, columns, each)
        trace.drop("quantized input")


@dataclass(frozen=True)
class WeightOnlyInt8(Method):
    """torchao's ``Int8WeightOnlyConfig``: int8 with a float32 scale per row, converted to bfloat16 per product."""

    def weight_tensors(self, layer: Layer, each: int) -> list[int]:
        """Weight, row scales, and ``Int8Tensor``'s zero points: one int8 per row, all zero."""
        return [layer.weight, layer.out * 4, layer.out]

    def multiply(self, trace: Trace, name: str, rows: int, inner: int, columns: int, each: int) -> None:
        """``Int8Tensor``: product with the cast weight, times the scales, plus the bias."""
        trace.make("cast weight", inner * columns * each)
        super().multiply(trace, "unscaled output", rows, inner, columns, each)
        trace.drop("cast weight")
        trace.make(name, rows * columns * each)
        trace.drop("unscaled output")


@dataclass(frozen=True)
class DynamicInt8(WeightOnlyInt8):
    """torchao's ``Int8DynamicActivationInt8WeightConfig``: both factors in int8, each with a float32 scale per row."""

    def multiply(self, trace: Trace, name: str, rows: int, inner: int, columns: int, each: int) -> None:
        """``quantize_affine`` of the input, then ``int_scaled_matmul``. Compiled blocks need fewer tensors."""
        for _ in range(4):  # times the reciprocal scale, rounded, plus the zero point, clamped
            trace.make("scaled input", rows * inner * 4)
        trace.make("quantized input", rows * inner)
        trace.drop("scaled input")
        trace.make("contiguous weight", inner * columns)
        trace.matmul(rows, inner, columns)
        trace.make("int32 output", rows * columns * 4, moves=False)
        trace.drop("contiguous weight")
        trace.make("output of scaled rows", rows * columns * 4)
        trace.drop("int32 output")
        trace.make("y_dot_scaled", rows * columns * each)
        trace.drop("output of scaled rows")
        trace.make("output in float32", rows * columns * 4)
        trace.make(name, rows * columns * each)
        trace.drop("output in float32", "y_dot_scaled", "quantized input")


@dataclass(frozen=True)
class BlockFloat4(Method):
    """bitsandbytes' nf4: 4 bits per element and a float32 scale per 64, converted to bfloat16 for each product."""

    def weight_tensors(self, layer: Layer, each: int) -> list[int]:
        """Packed weight, block scales (no double quantization), and a table of the 16 float32 values per weight."""
        return [-(-layer.weight // 2), -(-layer.weight // 64) * 4, 16 * 4]

    def multiply(self, trace: Trace, name: str, rows: int, inner: int, columns: int, each: int) -> None:
        """``MatMul4Bit.forward``: ``F.linear`` with ``dequantize_4bit(weight)``."""
        trace.make("dequantized weight", inner * columns * each)
        super().multiply(trace, name, rows, inner, columns, each)
        trace.drop("dequantized weight")


@dataclass(frozen=True)
class LlmInt8(Method):
    """bitsandbytes' LLM.int8 (``MatMul8bitLt``): int8 products, with outlier columns in full precision.

    ``outliers`` is the number of a layer's input columns with a magnitude of 6 or more; it depends on the prompts, so
    no configuration says it. bitsandbytes keeps those columns of each weight in full precision from the first step on.
    """

    outliers: int = 280

    def weight_tensors(self, layer: Layer, each: int) -> list[int]:
        """Weight and a float32 scale per row (SCB)."""
        return [layer.weight, layer.out * 4]

    def grown_by(self, layers: tuple[Layer, ...]) -> int:
        """``state.subB``, [outliers, out] in float16 for each layer."""
        return sum(
            min(self.outliers, layer.weight // layer.out) * layer.out * 2 for layer in layers if self.quantizes(layer)
        )

    def multiply(self, trace: Trace, name: str, rows: int, inner: int, columns: int, each: int) -> None:
        """Tensors have the names in ``bitsandbytes.autograd._functions``."""
        # int8_vectorwise_quant(A.to(float16)): `outliers = A.abs() >= threshold` makes two more copies.
        trace.make("A.to(float16)", rows * inner * 2)
        trace.make("CA", rows * inner)
        trace.make("A.abs()", rows * inner * 2)
        trace.make("outliers", rows * inner)
        trace.drop("A.abs()", "A.to(float16)", "outliers")
        # int8_linear_matmul returns int32; int8_mm_dequant converts it to float16; that is cast to the input's dtype.
        trace.matmul(rows, inner, columns)
        trace.make("out32", rows * columns * 4, moves=False)
        trace.make("dequantized", rows * columns * 2)
        trace.make("output", rows * columns * each)
        trace.drop("dequantized")
        # output.addmm(subA, subB) is a new tensor.
        trace.make(name, rows * columns * each)
        trace.drop("output", "out32", "CA")


# The libraries' defaults, which published figures refer to.
FULL = Method()
# DEFAULT_SKIP_MODULES_PATTERN of diffusers and the transformer's own _skip_layerwise_casting_patterns.
FP8_STORAGE = LayerwiseCasting(NEEDS["fp8"], skip=("norm", "^proj_out$", "x_embedder", "context_embedder"))
FP8_WEIGHT_ONLY = WeightOnlyFloat8(NEEDS["fp8-weights"])
FP8_DYNAMIC = DynamicFloat8(NEEDS["fp8-dynamic"], matmul_speed=2.0)
# quantize_affine makes two float32 copies: 8 bytes per element, 0.4 GiB for the largest layer as measured on an H100.
INT8_WEIGHT_ONLY = WeightOnlyInt8(NEEDS["int8"], quantizing_bytes=8)
INT8_DYNAMIC = DynamicInt8(NEEDS["int8-dynamic"], quantizing_bytes=8, matmul_speed=2.0)
NF4 = BlockFloat4(NEEDS["nf4"], quantized_on_gpu=True)
LLM_INT8 = LlmInt8(NEEDS["llm-int8"], movable=False, quantized_on_gpu=True)
# The layers that hunyuan_local/pipeline/loading/quantization.py keeps in full precision; the reasons are there.
_OUTSIDE_THE_BLOCKS = ("^context_embedder", "^time_text_embed", "^norm_out", "^proj_out$")
_FEW_ROWS = (r"\.norm", "add_[qkv]_proj$", "to_add_out$", "ff_context")
# The package's method for each value of a profile's ``quantization``.
METHODS: dict[Quantization | None, Method] = {
    None: FULL,
    "fp8": FP8_STORAGE,
    "fp8-weights": replace(FP8_WEIGHT_ONLY, skip=_OUTSIDE_THE_BLOCKS),
    "fp8-dynamic": replace(FP8_DYNAMIC, skip=_OUTSIDE_THE_BLOCKS, by_row=True),
    "int8": replace(INT8_WEIGHT_ONLY, skip=_OUTSIDE_THE_BLOCKS),
    "int8-dynamic": replace(INT8_DYNAMIC, skip=(*_OUTSIDE_THE_BLOCKS, *_FEW_ROWS)),
    "nf4": replace(NF4, skip=_OUTSIDE_THE_BLOCKS),
    # bitsandbytes 0.50 keeps no columns in full precision from one product to the next.
    "llm-int8": replace(LLM_INT8, skip=_OUTSIDE_THE_BLOCKS, outliers=0),
}
