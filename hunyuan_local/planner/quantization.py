"""How weights are stored and multiplied: full precision, and each library's ways to make them smaller.

A method says how many bytes a layer takes and what lies beside it while it is multiplied. Where it can run
and be moved is in ``hunyuan_local.config.quantization``. Knows nothing about whole models.
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
    """Full precision; the base of the others.

    Attributes:
        needs: what it is called, and what it asks of a machine.
        skip: patterns of layer names that stay in full precision.
        movable: whether model offload can take the weights off the GPU.
        quantized_on_gpu: whether the weights go to the GPU as they are read, without stopping on the host;
            else they are read there in full precision first.
        quantizing_bytes: an element of a layer, beside it while it is quantised on the device.
        matmul_speed: how many times as fast as bfloat16 the tensor cores multiply.
    """

    needs: Needs = _FULL_PRECISION
    skip: tuple[str, ...] = ()
    movable: bool = True
    quantized_on_gpu: bool = False
    quantizing_bytes: int = 0
    matmul_speed: float = 1.0

    @property
    def name(self) -> str:
        """What is quantised to, and by which library."""
        return self.needs.title

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
class WeightOnlyFloat8(Method):
    """torchao's ``Float8WeightOnlyConfig``: float8 with a float32 scale a row, made bfloat16 for each product."""

    def weight_tensors(self, layer: Layer, each: int) -> list[int]:
        """See :meth:`Method.weight_tensors`."""
        return [layer.weight, layer.out * 4]

    def multiply(self, trace: Trace, name: str, rows: int, inner: int, columns: int, each: int) -> None:
        """See :meth:`Method.multiply`; ``_dequantize_affine_float8``, then the product, then plus the bias."""
        trace.make("weight in float32", inner * columns * 4)
        trace.make("scaled weight", inner * columns * 4)
        trace.make("dequantised weight", inner * columns * each)
        trace.drop("weight in float32", "scaled weight")
        super().multiply(trace, "output without bias", rows, inner, columns, each)
        trace.drop("dequantised weight")
        trace.make(name, rows * columns * each)
        trace.drop("output without bias")


@dataclass(frozen=True)
class DynamicFloat8(Method):
    """torchao's ``Float8DynamicActivationFloat8WeightConfig``: both factors in float8, each with one scale."""

    def weight_tensors(self, layer: Layer, each: int) -> list[int]:
        """See :meth:`Method.weight_tensors`; one float32 scale for the whole weight."""
        return [layer.weight, 4]

    def multiply(self, trace: Trace, name: str, rows: int, inner: int, columns: int, each: int) -> None:
        """See :meth:`Method.multiply`; ``_quantize_affine_float8``. Compiled blocks make less than this."""
        steps = ("input in float32", "scaled input", "clamped input")
        for step in steps:
            trace.make(step, rows * inner * 4)
        trace.make("quantised input", rows * inner)
        trace.drop(*steps)
        super().multiply(trace, name, rows, inner, columns, each)
        trace.drop("quantised input")


@dataclass(frozen=True)
class WeightOnlyInt8(Method):
    """torchao's ``Int8WeightOnlyConfig``: int8 with a float32 scale a row, turned into bfloat16 for each product."""

    def weight_tensors(self, layer: Layer, each: int) -> list[int]:
        """See :meth:`Method.weight_tensors`; ``Int8Tensor`` keeps zero points too, which are zero: an int8 a row."""
        return [layer.weight, layer.out * 4, layer.out]

    def multiply(self, trace: Trace, name: str, rows: int, inner: int, columns: int, each: int) -> None:
        """See :meth:`Method.multiply`; ``Int8Tensor``: mm with the cast weight, times the scales, plus the bias."""
        trace.make("cast weight", inner * columns * each)
        super().multiply(trace, "unscaled output", rows, inner, columns, each)
        trace.drop("cast weight")
        trace.make(name, rows * columns * each)
        trace.drop("unscaled output")


@dataclass(frozen=True)
class DynamicInt8(WeightOnlyInt8):
    """torchao's ``Int8DynamicActivationInt8WeightConfig``: both factors in int8, a float32 scale a row of each."""

    def multiply(self, trace: Trace, name: str, rows: int, inner: int, columns: int, each: int) -> None:
        """See :meth:`Method.multiply`; ``quantize_affine``, ``int_scaled_matmul``. Compiled blocks make less."""
        for _ in range(4):  # times the scale's reciprocal, rounded, plus the zero point, clamped
            trace.make("scaled input", rows * inner * 4)
        trace.make("quantised input", rows * inner)
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
        trace.drop("output in float32", "y_dot_scaled", "quantised input")


@dataclass(frozen=True)
class BlockFloat4(Method):
    """bitsandbytes' nf4: 4 bits an element and a float32 scale for every 64, turned into bfloat16 for each product."""

    def weight_tensors(self, layer: Layer, each: int) -> list[int]:
        """See :meth:`Method.weight_tensors`; no double quantisation. Each has its own table of the 16 values."""
        return [-(-layer.weight // 2), -(-layer.weight // 64) * 4, 16 * 4]

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


# What the libraries do if nothing else is asked of them: published figures are of these.
FULL = Method()
# DEFAULT_SKIP_MODULES_PATTERN of diffusers and the transformer's own _skip_layerwise_casting_patterns.
FP8_STORAGE = LayerwiseCasting(NEEDS["fp8"], skip=("norm", "^proj_out$", "x_embedder", "context_embedder"))
FP8_WEIGHT_ONLY = WeightOnlyFloat8(NEEDS["fp8-weights"])
FP8_DYNAMIC = DynamicFloat8(NEEDS["fp8-dynamic"], matmul_speed=2.0)
# quantize_affine makes two copies in float32: 0.4 GiB for the largest layer, as measured on an H100.
INT8_WEIGHT_ONLY = WeightOnlyInt8(NEEDS["int8"], quantizing_bytes=8)
INT8_DYNAMIC = DynamicInt8(NEEDS["int8-dynamic"], quantizing_bytes=8, matmul_speed=2.0)
NF4 = BlockFloat4(NEEDS["nf4"], quantized_on_gpu=True)
LLM_INT8 = LlmInt8(NEEDS["llm-int8"], movable=False, quantized_on_gpu=True)
# What hunyuan_local/pipeline/loading/quantization.py keeps in full precision, and why.
_OUTSIDE_THE_BLOCKS = ("^context_embedder", "^time_text_embed", "^norm_out", "^proj_out$")
_FEW_ROWS = (r"\.norm", "add_[qkv]_proj$", "to_add_out$", "ff_context")
# What each word of a profile means in this package.
METHODS: dict[Quantization | None, Method] = {
    None: FULL,
    "fp8": FP8_STORAGE,
    "fp8-weights": replace(FP8_WEIGHT_ONLY, skip=_OUTSIDE_THE_BLOCKS),
    "fp8-dynamic": replace(FP8_DYNAMIC, skip=_OUTSIDE_THE_BLOCKS),
    "int8": replace(INT8_WEIGHT_ONLY, skip=_OUTSIDE_THE_BLOCKS),
    "int8-dynamic": replace(INT8_DYNAMIC, skip=(*_OUTSIDE_THE_BLOCKS, *_FEW_ROWS)),
    "nf4": replace(NF4, skip=_OUTSIDE_THE_BLOCKS),
    # bitsandbytes 0.50 keeps no columns in full precision from one product to the next.
    "llm-int8": replace(LLM_INT8, skip=_OUTSIDE_THE_BLOCKS, outliers=0),
}
