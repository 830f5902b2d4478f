"""Storage and products of the transformer's weights, compared with the libraries' real classes.

The bytes of whole transformers are held against loaded ones in ``test_quantization.py``.
"""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from diffusers.quantizers.auto import DiffusersAutoQuantizer
from diffusers.quantizers.bitsandbytes.utils import replace_with_bnb_linear
from live_tensors import LARGE, live_peak, tiny_config, transformer

from hunyuan_local.config import Quantization
from hunyuan_local.config.quantization import NEEDS
from hunyuan_local.pipeline.loading.quantization import transformer_config
from hunyuan_local.planner import Machine, find_gpu
from hunyuan_local.planner.architecture import Layer, Transformer
from hunyuan_local.planner.modes import Mode, all_modes, why_impossible
from hunyuan_local.planner.quantization import FP8_DYNAMIC, FP8_WEIGHT_ONLY, INT8_DYNAMIC, INT8_WEIGHT_ONLY, METHODS
from hunyuan_local.planner.trace import Trace
from hunyuan_local.planner.weights import store

GIB = 2**30
TORCHAO = ["fp8-weights", "fp8-dynamic", "int8", "int8-dynamic"]
CONFIGS = {"13 B": LARGE["transformer"], "tiny": tiny_config("transformer")}


def planned_layers(method: str, config: dict) -> set[str]:
    return {layer.name for layer in Transformer.model_validate(config).layers() if METHODS[method].quantizes(layer)}


# --- Names of methods ---


def test_every_word_of_a_profile_has_a_meaning() -> None:
    assert set(METHODS) == {None, *get_args(Quantization)}


def test_plans_weigh_four_of_them() -> None:
    assert {mode.quantization for mode in all_modes()} == {None, "fp8", "int8", "nf4"}


@pytest.mark.parametrize("method", get_args(Quantization))
def test_every_word_asks_what_the_loader_asks(method: str) -> None:
    assert METHODS[method].needs is NEEDS[method]


# --- Bytes ---


def test_bytes_of_dynamic_float8_are_those_of_its_tensors() -> None:
    layer = Layer("transformer_blocks.0.attn.to_q", "linear", 64 * 32, 64, 64)
    from torchao.quantization import Float8Tensor, PerRow

    weight = torch.empty(64, 32, dtype=torch.bfloat16, device="meta")
    real = Float8Tensor.from_hp(weight, granularity=PerRow())
    assert METHODS["fp8-dynamic"].weight_tensors(layer, 2) == [real.qdata.nbytes, real.scale.nbytes]


def test_the_librarys_dynamic_float8_has_one_scale() -> None:
    layer = Layer("transformer_blocks.0.attn.to_q", "linear", 64 * 32, 64, 64)
    real = torchao_weight(FP8_DYNAMIC, 64, 32)
    assert FP8_DYNAMIC.weight_tensors(layer, 2) == [real.qdata.nbytes, real.scale.nbytes]


@pytest.mark.parametrize("method", get_args(Quantization))
def test_every_quantisation_makes_the_13_b_transformer_smaller(method: str) -> None:
    config = Transformer.model_validate(CONFIGS["13 B"])
    assert store(config, "bfloat16", METHODS[method]).total < 0.75 * store(config, "bfloat16").total


# --- Which layers are quantized ---


@pytest.mark.parametrize("size", CONFIGS)
@pytest.mark.parametrize("method", TORCHAO)
def test_torchao_quantises_the_layers_that_are_planned(method: str, size: str) -> None:
    model = transformer(CONFIGS[size], torch.bfloat16)
    quantizer = DiffusersAutoQuantizer.from_config(transformer_config(method, torch.bfloat16))
    quantizer.validate_environment()
    quantizer._process_model_before_weight_loading(model, device_map=None)
    names = [name for name, _ in model.named_parameters()]
    chosen = {name for name in names if quantizer.check_if_quantized_param(model, None, name, {})}
    assert {name.removesuffix(".weight") for name in chosen} == planned_layers(method, CONFIGS[size])


@pytest.mark.parametrize("size", CONFIGS)
@pytest.mark.parametrize("method", ["nf4", "llm-int8"])
def test_bitsandbytes_quantises_the_layers_that_are_planned_and_the_last_one(method: str, size: str) -> None:
    config = transformer_config(method, torch.bfloat16)
    model = transformer(CONFIGS[size], torch.bfloat16)
    replace_with_bnb_linear(model, config.llm_int8_skip_modules, quantization_config=config)
    chosen = {name for name, part in model.named_modules() if type(part).__module__.startswith("bitsandbytes")}
    assert chosen == planned_layers(method, CONFIGS[size]) | {"proj_out"}


# --- Products ---


def torchao_weight(method: object, columns: int, inner: int) -> torch.Tensor:
    """A weight as torchao quantizes it, on the ``meta`` device."""
    from torchao.float8.inference import Float8MMConfig
    from torchao.quantization import Float8Tensor, Int8Tensor, PerRow, PerTensor
    from torchao.quantization.quantize_.workflows import QuantizeTensorToFloat8Kwargs, QuantizeTensorToInt8Kwargs

    weight = torch.empty(columns, inner, dtype=torch.bfloat16, device="meta")
    if method is INT8_WEIGHT_ONLY:
        return Int8Tensor.from_hp(weight, granularity=PerRow())
    if method is INT8_DYNAMIC:
        inputs = QuantizeTensorToInt8Kwargs(granularity=PerRow())
        return Int8Tensor.from_hp(weight, granularity=PerRow(), act_quant_kwargs=inputs)
    if method is FP8_WEIGHT_ONLY:
        return Float8Tensor.from_hp(weight, granularity=PerRow())
    inputs = QuantizeTensorToFloat8Kwargs(granularity=PerTensor())
    return Float8Tensor.from_hp(
        weight, granularity=PerTensor(), mm_config=Float8MMConfig(use_fast_accum=True), act_quant_kwargs=inputs
    )


METHODS_OF_TORCHAO = (INT8_WEIGHT_ONLY, INT8_DYNAMIC, FP8_WEIGHT_ONLY, FP8_DYNAMIC)
# On the ``meta`` device torchao makes copies for the int8 product, as on CUDA for 16 rows and fewer: they are small
# next to an output of many rows.
PRODUCTS = [
    *((method, 4000, *size) for method in METHODS_OF_TORCHAO for size in ((256, 1024), (1024, 256))),
    *((method, 64, 256, 1024) for method in METHODS_OF_TORCHAO if method is not INT8_DYNAMIC),
]


@pytest.mark.parametrize(
    ("method", "rows", "inner", "columns"), PRODUCTS, ids=lambda value: getattr(value, "name", value)
)
def test_a_product_peaks_like_that_of_torchao(method: object, rows: int, inner: int, columns: int) -> None:
    weight = torchao_weight(method, columns, inner)
    kept = torch.nn.Module()
    for name in weight.__tensor_flatten__()[0]:
        kept.register_buffer(name, getattr(weight, name))
    kept.register_buffer("bias", torch.empty(columns, dtype=torch.bfloat16, device="meta"))
    kept.register_buffer("input", torch.empty(1, rows, inner, dtype=torch.bfloat16, device="meta"))
    peak = live_peak(kept, lambda: torch.nn.functional.linear(kept.input, weight, kept.bias))
    trace = Trace()
    method.multiply(trace, "output", rows, inner, columns, 2)
    assert trace.cost().peak_bytes == pytest.approx(peak, rel=0.02)


# --- What a machine cannot do ---


@pytest.mark.parametrize(
    ("mode", "gpu", "reason"),
    [
        (Mode("none", "fp8-dynamic"), "3090", "needs compute capability 8.9, this GPU has 8.6"),
        (Mode("sequential", "nf4"), "4090", "does not support sequential offload, only none, model, group"),
        (Mode("group", "llm-int8"), "4090", "does not support group offload, only none, model"),
    ],
)
def test_what_a_card_cannot_do_has_a_reason(mode: Mode, gpu: str, reason: str) -> None:
    spec = find_gpu(gpu)
    assert why_impossible(mode, Machine(spec.memory_bytes, None, spec)).endswith(reason)


@pytest.mark.parametrize("method", ["fp8", "fp8-weights", "int8", "int8-dynamic"])
def test_what_runs_on_a_cpu_is_possible_there(method: str) -> None:
    assert why_impossible(Mode("none", method), Machine(None, 4 * GIB)) is None


@pytest.mark.parametrize("method", ["fp8-dynamic", "nf4", "llm-int8"])
def test_what_does_not_run_on_a_cpu_is_impossible_there(method: str) -> None:
    assert why_impossible(Mode("none", method), Machine(None, 4 * GIB)).endswith("needs a CUDA device")


@pytest.mark.parametrize("offload", ["none", "model", "group", "sequential"])
def test_torchao_goes_with_every_offload(offload: str) -> None:
    spec = find_gpu("4090")
    machine = Machine(spec.memory_bytes, None, spec)
    assert [name for name in TORCHAO if why_impossible(Mode(offload, name), machine)] == []
