"""The planner's transformer compared with the real class: operations exactly, live bytes within 1 %."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel
from live_tensors import (
    LARGE,
    attention,
    counted_flops,
    live_peak,
    rms_norm,
    tiny_config,
    transformer,
    transformer_inputs,
)

from hunyuan_local.pipeline import blocks
from hunyuan_local.pipeline.attention import rotary
from hunyuan_local.pipeline.attention.mask_free import drop_padding
from hunyuan_local.pipeline.blocks import run_in_chunks
from hunyuan_local.planner.architecture import Transformer
from hunyuan_local.planner.chunked_blocks import CHUNK_TOKENS
from hunyuan_local.planner.denoising import Pass, explain_peak, trace_pass
from hunyuan_local.planner.elementwise import ROTARY_PIECE_BYTES
from hunyuan_local.planner.quantization import INT8_WEIGHT_ONLY, LLM_INT8, NF4

# One block of each kind of the 13 B model: the others cost the same.
ONE_OF_EACH = LARGE["transformer"] | {"num_layers": 1, "num_single_layers": 1}
LARGE_CASES = [((33, 90, 160), 256), ((31, 64, 96), 128), ((4, 20, 32), 40), ((1, 4, 4), 256)]
TINY_CASES = [((5, 10, 18), 256), ((5, 10, 18), 12), ((1, 10, 18), 256)]
IMAGE_CASES = [(kind, *case) for kind in ("token_replace", "latent_concat") for case in LARGE_CASES[:2]]
CASES = [("large", *case) for case in LARGE_CASES] + [("tiny", *case) for case in TINY_CASES]


@cache
def real(kind: str) -> HunyuanVideoTransformer3DModel:
    return transformer(config_of(kind), torch.float32 if kind == "tiny" else torch.bfloat16)


def config_of(kind: str) -> dict:
    if kind == "tiny":
        return tiny_config("transformer")
    return ONE_OF_EACH | {
        "large": {},
        "token_replace": {"image_condition_type": "token_replace"},
        "latent_concat": {"image_condition_type": "latent_concat", "in_channels": 33, "guidance_embeds": False},
    }[kind]  # fmt: skip


def traced(kind: str, latents: tuple[int, int, int], text_tokens: int) -> tuple[Transformer, Pass]:
    config = Transformer.model_validate(config_of(kind))
    tokens = latents[0] * latents[1] * latents[2] // 4
    return config, Pass(tokens, text_tokens, 4 if kind == "tiny" else 2, "row")


@pytest.mark.parametrize(("kind", "latents", "text_tokens"), CASES)
def test_operations_are_those_that_torch_counts(kind: str, latents: tuple[int, int, int], text_tokens: int) -> None:
    model = real(kind)
    inputs = transformer_inputs(model, latents, text_tokens)
    assert trace_pass(*traced(kind, latents, text_tokens)).flops == counted_flops(model, lambda: model(**inputs))


@pytest.mark.parametrize(("kind", "latents", "text_tokens"), CASES)
def test_the_peak_is_that_of_the_real_forward(
    kind: str, latents: tuple[int, int, int], text_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
    model = real(kind)
    inputs = transformer_inputs(model, latents, text_tokens)
    peak = live_peak(model, lambda: model(**inputs), inputs)
    assert trace_pass(*traced(kind, latents, text_tokens)).peak_bytes == pytest.approx(peak, rel=0.01)


@pytest.mark.parametrize(
    ("latents", "petaflops"),
    [((33, 90, 160), 12.07), ((22, 90, 160), 5.73), ((33, 68, 120), 4.29), ((16, 40, 64), 0.224)],
)
def test_operations_of_the_13_b_model(latents: tuple[int, int, int], petaflops: float) -> None:
    tokens = latents[0] * latents[1] * latents[2] // 4
    flops = trace_pass(Transformer.model_validate(LARGE["transformer"]), Pass(tokens, 256)).flops
    assert flops / 1e15 == pytest.approx(petaflops, rel=2e-3)


@pytest.mark.parametrize(("kind", "latents", "text_tokens"), [*CASES, *IMAGE_CASES])
def test_the_peak_without_a_mask_is_that_of_our_attention(
    kind: str, latents: tuple[int, int, int], text_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
    monkeypatch.setattr(torch.nn.functional, "rms_norm", rms_norm)
    model = copy.deepcopy(real(kind))
    drop_padding(model, "native")
    run_in_chunks(model)
    model._forward_pre_hooks.clear()  # reads the mask, which has no values here; there is no padding to remove
    inputs = transformer_inputs(model, latents, text_tokens)
    peak = live_peak(model, lambda: model(**inputs), inputs)
    config, run = traced(kind, latents, text_tokens)
    assert trace_pass(config, replace(run, mask="none")).peak_bytes == pytest.approx(peak, rel=0.01)


def test_the_pieces_that_are_rotated_at_once_are_those_of_the_pipeline() -> None:
    assert rotary._PIECE_BYTES_ON_GPU == ROTARY_PIECE_BYTES


def test_the_chunks_are_those_of_the_pipeline() -> None:
    assert blocks._CHUNK_ON_GPU == CHUNK_TOKENS


def peak_names(mask: str) -> set[str]:
    run = Pass(118_800, 256, mask=mask)
    return {name for name, _ in explain_peak(Transformer.model_validate(LARGE["transformer"]), run)}


def test_at_720p_the_librarys_peak_is_where_the_keys_of_a_single_block_are_rotated() -> None:
    assert {"mlp_hidden_states", "x_rotated * sin", "value"} <= peak_names("row")


def test_at_720p_our_peak_is_where_attention_ends() -> None:
    assert {"query", "key", "value", "attention", "logsumexp"} <= peak_names("none")


def test_at_720p_our_peak_is_six_tensors_of_all_tokens() -> None:
    config = Transformer.model_validate(LARGE["transformer"])
    tensor = 119_056 * config.width * 2
    assert trace_pass(config, Pass(118_800, 256)).peak_bytes / tensor == pytest.approx(6, abs=0.5)


def test_a_square_mask_costs_as_many_bytes_as_pairs_of_tokens() -> None:
    config = Transformer.model_validate(LARGE["transformer"])
    row, square = (trace_pass(config, Pass(43_200, 256, mask=mask)).peak_bytes for mask in ("row", "square"))
    assert square - row > 43_456**2


@pytest.mark.parametrize("method", [INT8_WEIGHT_ONLY, NF4, LLM_INT8], ids=lambda method: method.name)
def test_quantised_layers_need_no_less_beside_the_weights(method: object) -> None:
    config = Transformer.model_validate(LARGE["transformer"])
    plain, quantised = trace_pass(config, Pass(118_800, 256)), trace_pass(config, Pass(118_800, 256, method=method))
    assert quantised.peak_bytes >= plain.peak_bytes
