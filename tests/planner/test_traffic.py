"""How much the blocks read and write, in tensors of all tokens, and what a step on an H100 takes by that count."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.normalization import RMSNorm
from live_tensors import LARGE, transformer
from traffic import OnePass, bytes_moved, moved_by_block

from hunyuan_local.pipeline.attention.elementwise import Eager, normalize
from hunyuan_local.pipeline.attention.mask_free import drop_padding
from hunyuan_local.pipeline.attention.rotary import rotate_
from hunyuan_local.pipeline.blocks import run_in_chunks
from hunyuan_local.planner.architecture import Transformer
from hunyuan_local.planner.denoising import Pass, trace_parts

TOKENS = (118_800, 32)  # of a video of 1280x720 and 129 frames, and of its text
TENSOR = sum(TOKENS) * 3072 * 2  # bytes of a tensor of all tokens
KINDS = ("dual", "single")
# An H100 (docs/measurements.md): 293 ms an attention call with torch's kernel, 2.4 s the matrix products of a step, and
# 0.8 of 3.35 TB/s for everything else, as the plan assumes.
ATTENTION_S, PRODUCTS_S, BYTES_PER_S = 60 * 0.293, 2.4, 0.8 * 3.35e12


@cache
def library() -> HunyuanVideoTransformer3DModel:
    return transformer(LARGE["transformer"] | {"num_layers": 1, "num_single_layers": 1}, torch.bfloat16)


def ours(elementwise: object) -> HunyuanVideoTransformer3DModel:
    model = copy.deepcopy(library())
    drop_padding(model, "native")
    run_in_chunks(model, elementwise)
    return model


@cache
def counts(name: str) -> dict[str, float]:
    """Tensors of all tokens that a block of each kind reads and writes."""
    one_pass = OnePass()
    model = {"library": library, "eager": lambda: ours(Eager()), "triton": lambda: ours(one_pass)}[name]()
    found = {}
    for kind, blocks in zip(KINDS, (model.transformer_blocks, model.single_transformer_blocks), strict=True):
        one_pass.bytes = 0
        found[kind] = (moved_by_block(blocks[0], TOKENS) + one_pass.bytes) / TENSOR
    return found


def seconds_of_a_step(found: dict[str, float]) -> float:
    """Attention, products, and the bytes of 20 dual and 40 single blocks."""
    return ATTENTION_S + PRODUCTS_S + (20 * found["dual"] + 40 * found["single"]) * TENSOR / BYTES_PER_S


@pytest.mark.parametrize(
    ("name", "dual", "single"), [("library", 122.5, 125.5), ("eager", 60.5, 49.5), ("triton", 23.5, 19.5)]
)
def test_a_block_reads_and_writes_this_many_tensors(name: str, dual: float, single: float) -> None:
    assert counts(name) == pytest.approx({"dual": dual, "single": single}, abs=0.5)


def test_norm_and_rotation_of_queries_or_keys_move_14_tensors_instead_of_43() -> None:
    x = torch.empty(1, 4096, 24, 128, dtype=torch.bfloat16, device="meta")
    cosines = torch.empty(4096, 128, device="meta")
    table = torch.empty(4096, 64, dtype=torch.complex64, device="meta")
    norm = RMSNorm(128, 1e-6).to("meta", torch.bfloat16)
    calls = {
        17: lambda: norm(x),
        26: lambda: apply_rotary_emb(x, (cosines, cosines), sequence_dim=1),
        4: lambda: normalize(norm, x),
        10: lambda: rotate_(x, table),
    }
    found = {expected: bytes_moved(call) / x.nbytes for expected, call in calls.items()}
    assert found == pytest.approx({expected: expected for expected in calls}, abs=0.4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_plan_moves_as_many_bytes(kind: str) -> None:
    planned = trace_parts(Transformer.model_validate(LARGE["transformer"]), Pass(*TOKENS))[kind].moved_bytes
    assert planned / TENSOR == pytest.approx(counts("eager")[kind], rel=0.03)


@pytest.mark.parametrize(("name", "most"), [("eager", 21.5), ("triton", 20.5)])
def test_a_step_on_an_h100_takes_at_most_this_long_by_count(name: str, most: float) -> None:
    assert seconds_of_a_step(counts(name)) < most


def test_the_count_gives_the_measured_step_of_the_librarys_blocks() -> None:
    # 23.05 s, with a kernel of 299 ms a call.
    assert seconds_of_a_step(counts("library")) + 60 * 0.006 == pytest.approx(23.05, rel=0.03)
