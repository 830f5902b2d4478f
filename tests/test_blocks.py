"""The blocks in chunks of tokens: diffusers' values, its hooks, and its code where ours does not apply."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import product

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel
from diffusers.hooks import HookRegistry, ModelHook
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.normalization import RMSNorm

from hunyuan_local.pipeline import blocks
from hunyuan_local.pipeline.attention.elementwise import Eager, normalize
from hunyuan_local.pipeline.attention.mask_free import drop_padding
from hunyuan_local.pipeline.attention.rotary import ComplexTables, rotate_
from hunyuan_local.pipeline.blocks import chunks, run_in_chunks

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture(scope="module", params=[None, "token_replace"], ids=["text to video", "token_replace"])
def stock(request: pytest.FixtureRequest) -> HunyuanVideoTransformer3DModel:
    torch.manual_seed(0)
    return HunyuanVideoTransformer3DModel(
        image_condition_type=request.param,
        num_attention_heads=2, attention_head_dim=16, num_layers=2, num_single_layers=2, num_refiner_layers=1,
        text_embed_dim=24, pooled_projection_dim=12, rope_axes_dim=(4, 6, 6),
    ).eval()  # fmt: skip


def chunked(stock: HunyuanVideoTransformer3DModel) -> HunyuanVideoTransformer3DModel:
    ours = copy.deepcopy(stock)
    drop_padding(ours, "native")
    run_in_chunks(ours)
    return ours


@pytest.fixture(scope="module")
def ours(stock: HunyuanVideoTransformer3DModel) -> HunyuanVideoTransformer3DModel:
    """The same model in chunks; tests that change it make another."""
    return chunked(stock)


@torch.no_grad()
def step(model: HunyuanVideoTransformer3DModel, *lengths: int) -> torch.Tensor:
    """A step of 12 image tokens, for one video for each length of its text."""
    draw = torch.Generator().manual_seed(1)
    count = len(lengths)
    return model(
        hidden_states=torch.randn(count, 16, 2, 4, 6, generator=draw),
        timestep=torch.full((count,), 500.0),
        encoder_hidden_states=torch.randn(count, 16, 24, generator=draw),
        encoder_attention_mask=(torch.arange(16) < torch.tensor(lengths)[:, None]).float(),
        pooled_projections=torch.randn(count, 12, generator=draw),
        guidance=torch.full((count,), 6000.0),
        return_dict=False,
    )[0]


@pytest.mark.parametrize("limit", [1, 5, 7, 12, 13, 512])
@pytest.mark.parametrize("lengths", [(1,), (9,), (3, 16)])
def test_a_step_in_chunks_equals_the_librarys(
    stock: HunyuanVideoTransformer3DModel,
    ours: HunyuanVideoTransformer3DModel,
    lengths: tuple[int, ...],
    limit: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blocks, "_CHUNK_ON_CPU", limit)
    torch.testing.assert_close(step(ours, *lengths), step(stock, *lengths), rtol=0, atol=2e-6)


@pytest.mark.parametrize("limit", [7, 512])
def test_a_block_equals_the_librarys_to_the_last_bit_in_bfloat16(
    stock: HunyuanVideoTransformer3DModel, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "_CHUNK_ON_CPU", limit)
    library = copy.deepcopy(stock).bfloat16()
    ours = chunked(library)
    draw = torch.Generator().manual_seed(2)
    image, text, temb, first = (torch.randn(1, n, 32, generator=draw).bfloat16() for n in (12, 5, 1, 1))
    tables = library.rope(torch.empty(1, 16, 2, 4, 6))
    # Of 12 image tokens, some are in the first frame: none or all of them in parts of a split video.
    firsts = [(first[:, 0], n) for n in (0, 6, 12)] if stock.config.image_condition_type else [(None, 6)]
    for name, of_first in product(("transformer_blocks", "single_transformer_blocks"), firsts):
        with torch.no_grad():
            found, expected = (
                getattr(model, name)[0](image, text, temb[:, 0], None, tables, *of_first) for model in (ours, library)
            )
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)), (name, of_first[1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_norm_equals_the_librarys_to_the_last_bit(dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    x = (torch.randn(1, 500, 6, 128, generator=draw) * 3).to(dtype)
    norm = RMSNorm(128, 1e-6).requires_grad_(False)
    norm.weight.normal_(generator=draw)
    norm.to(dtype)
    out = torch.empty_like(x)
    assert torch.equal(normalize(norm, x), norm(x))
    assert normalize(norm, x, out) is out and torch.equal(out, norm(x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_rotation_equals_the_librarys_to_the_last_bit(dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2, 500, 6, 128, generator=draw).to(dtype)
    angles = (torch.rand(500, 64, generator=draw) * 100).repeat_interleave(2, dim=1)
    expected = apply_rotary_emb(x, (angles.cos(), angles.sin()), sequence_dim=1)
    rotate_(x, ComplexTables().of((angles.cos(), angles.sin())))
    assert torch.equal(x, expected)


def float32_weight(norm: RMSNorm) -> None:
    norm.float()


def hook(norm: RMSNorm) -> None:
    HookRegistry.check_if_exists_or_initialize(norm).register_hook(Doubling(), "doubling")


class Doubling(ModelHook):
    def post_forward(self, module: torch.nn.Module, output: torch.Tensor) -> torch.Tensor:
        return output * 2


@pytest.mark.parametrize("change", [float32_weight, hook, lambda norm: norm.register_parameter("weight", None)])
def test_a_norm_that_is_not_plain_is_called(change: Callable[[RMSNorm], None]) -> None:
    norm, x = RMSNorm(16, 1e-6).bfloat16().requires_grad_(False), torch.randn(1, 3, 2, 16).bfloat16()
    change(norm)
    expected, out = norm(x), torch.empty_like(x)
    assert torch.equal(normalize(norm, x), expected)
    assert torch.equal(normalize(norm, x, out), expected.bfloat16())


def test_without_a_norm_queries_are_only_rotated() -> None:
    x = torch.randn(1, 3, 2, 16)
    assert Eager().norm_rotate(None, x, None) is x


def test_complex_tables_are_computed_once_and_freed_with_the_tables() -> None:
    kept, tables = ComplexTables(), (torch.ones(4, 8), torch.zeros(4, 8))
    first = kept.of(tables)
    assert kept.of(tables) is first
    assert kept.of((torch.ones(4, 8), torch.ones(4, 8))) is not first
    del tables
    assert kept._table is None


class Counting(ModelHook):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def pre_forward(self, module: torch.nn.Module, *args: object, **kwargs: object) -> tuple:
        self.calls += 1
        return args, kwargs


def counting(model: HunyuanVideoTransformer3DModel) -> list[Counting]:
    found = []
    for block in (*model.transformer_blocks, *model.single_transformer_blocks):
        found.append(Counting())
        HookRegistry.check_if_exists_or_initialize(block).register_hook(found[-1], f"counting {len(found)}")
    return found


def test_hooks_run_whether_they_were_there_before_or_after(
    stock: HunyuanVideoTransformer3DModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, ran = copy.deepcopy(stock), []
    hooks = counting(ours)
    drop_padding(ours, "native")
    run_in_chunks(ours)
    ours.single_transformer_blocks[0].register_forward_hook(lambda *_: ran.append("torch"))
    monkeypatch.setattr(blocks, "chunks", lambda x: ran.append("ours") or chunks(x))
    torch.testing.assert_close(step(ours, 9), step(stock, 9), rtol=0, atol=2e-6)
    assert [hook.calls for hook in hooks] == [1, 1, 1, 1]
    assert {"torch", "ours"} == set(ran)


def test_a_call_with_gradients_runs_the_librarys_code(stock: HunyuanVideoTransformer3DModel) -> None:
    ours = chunked(stock)
    image, text, temb = torch.randn(1, 12, 32, requires_grad=True), torch.randn(1, 5, 32), torch.randn(1, 32)
    tables = stock.rope(torch.empty(1, 16, 2, 4, 6))
    found = ours.single_transformer_blocks[0](image, text, temb, None, tables, torch.randn(1, 32), 6)
    found[0].sum().backward()
    assert image.grad is not None


def test_a_copy_of_a_chunked_transformer_has_its_own_weights(stock: HunyuanVideoTransformer3DModel) -> None:
    ours = chunked(stock)
    expected = step(ours, 9)
    other = copy.deepcopy(ours)
    for weight in other.parameters():
        weight.data.zero_()
    assert torch.equal(step(ours, 9), expected)
    assert not step(other, 9).any()


@pytest.mark.parametrize(
    ("tokens", "limit", "lengths"), [(1, 4, [1]), (4, 4, [4]), (5, 4, [3, 2]), (9, 4, [3, 3, 3]), (10, 4, [4, 4, 2])]
)
def test_chunks_are_about_equal_and_cover_all_tokens(
    tokens: int, limit: int, lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "_CHUNK_ON_CPU", limit)
    found = chunks(torch.empty(1, tokens, 2))
    assert [piece.stop - piece.start for piece in found] == lengths
    assert [token for piece in found for token in range(tokens)[piece]] == list(range(tokens))
