"""Mask-free attention: equal to diffusers', only for this transformer, with a kernel that works here."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from accelerate.hooks import remove_hook_from_module
from diffusers import HunyuanVideoPipeline, HunyuanVideoTransformer3DModel
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from diffusers.models.embeddings import apply_rotary_emb
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from equivalence import library_latents

from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.config import load_model_config, load_profile
from hunyuan_local.config.kernels import BACKENDS, EXACT, INEXACT
from hunyuan_local.errors import ConfigError, GpuMemoryError
from hunyuan_local.pipeline import denoise
from hunyuan_local.pipeline.attention import kernel_choice, rotary
from hunyuan_local.pipeline.attention.kernel_choice import (
    choose_backend,
    fastest_first,
    find_problem,
)
from hunyuan_local.pipeline.attention.mask_free import drop_padding
from hunyuan_local.pipeline.attention.rotary import keep_rotary_tables
from hunyuan_local.pipeline.blocks import run_in_chunks
from hunyuan_local.pipeline.loading.loader import load_model
from hunyuan_local.schema import GenerationRequest

PADDED = 256
TOLERANCE = 2e-6  # in float32, on values up to about 2.5


def toy() -> HunyuanVideoTransformer3DModel:
    torch.manual_seed(0)
    return HunyuanVideoTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, num_layers=2, num_single_layers=2, num_refiner_layers=2,
        text_embed_dim=24, pooled_projection_dim=12, rope_axes_dim=(4, 6, 6),
    ).eval()  # fmt: skip


def mask_free(stock: HunyuanVideoTransformer3DModel, backend: str = "native") -> HunyuanVideoTransformer3DModel:
    ours = copy.deepcopy(stock)
    drop_padding(ours, backend)
    keep_rotary_tables(ours)
    run_in_chunks(ours)
    return ours


def inputs(*lengths: int, size: tuple[int, int, int] = (2, 4, 6), seed: int = 0) -> dict:
    """Arguments of one step; each video of the batch has a text of a different length."""
    generator = torch.Generator().manual_seed(seed)
    batch = len(lengths)
    return {
        "hidden_states": torch.randn(batch, 16, *size, generator=generator),
        "timestep": torch.full((batch,), 500.0),
        "encoder_hidden_states": torch.randn(batch, PADDED, 24, generator=generator),
        "encoder_attention_mask": (torch.arange(PADDED) < torch.tensor(lengths)[:, None]).float(),
        "pooled_projections": torch.randn(batch, 12, generator=generator),
        "guidance": torch.full((batch,), 6000.0),
    }


@torch.no_grad()
def step(transformer: HunyuanVideoTransformer3DModel, given: dict) -> torch.Tensor:
    return transformer(**given, return_dict=False)[0]


@pytest.fixture(scope="module")
def stock() -> HunyuanVideoTransformer3DModel:
    return toy()


@pytest.fixture(scope="module")
def ours(stock: HunyuanVideoTransformer3DModel) -> HunyuanVideoTransformer3DModel:
    return mask_free(stock)


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 17, 33, 77, 100, 128, 200, 255, 256])
def test_a_step_equals_the_librarys(stock: torch.nn.Module, ours: torch.nn.Module, length: int) -> None:
    torch.testing.assert_close(step(ours, inputs(length)), step(stock, inputs(length)), rtol=0, atol=TOLERANCE)


@settings(max_examples=15, deadline=None)
@given(
    length=st.integers(1, PADDED),
    size=st.tuples(st.integers(1, 4), st.sampled_from([2, 4, 6]), st.sampled_from([2, 4, 6])),
    seed=st.integers(0, 2**32),
)
def test_a_step_of_any_length_and_size_equals_the_librarys(
    stock: torch.nn.Module, ours: torch.nn.Module, length: int, size: tuple[int, int, int], seed: int
) -> None:
    step_inputs = inputs(length, size=size, seed=seed)
    torch.testing.assert_close(step(ours, step_inputs), step(stock, step_inputs), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotation_in_pieces_equals_the_librarys_to_the_last_bit(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotary, "_PIECE_BYTES_A_CORE", 4096)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 101, 3, 16, generator=generator).to(dtype)
    angles = (torch.rand(101, 8, generator=generator) * 100).repeat_interleave(2, dim=1)
    tables = angles.cos(), angles.sin()
    expected = apply_rotary_emb(x, tables, sequence_dim=1)
    assert len(rotary._pieces(x)) > 3
    rotary.rotate_(x, rotary.ComplexTables().of(tables))
    assert torch.equal(x, expected)


def test_a_piece_is_at_least_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotary, "_PIECE_BYTES_A_CORE", 1)
    assert rotary._pieces(torch.zeros(1, 3, 2, 16)) == [slice(0, 1), slice(1, 2), slice(2, 3)]


@pytest.mark.parametrize("length", [1, 40, 256])
def test_the_refined_text_equals_the_librarys(stock: torch.nn.Module, ours: torch.nn.Module, length: int) -> None:
    refined: list[torch.Tensor] = []
    for transformer in (stock, ours):
        handle = transformer.context_embedder.register_forward_hook(lambda module, args, out: refined.append(out))
        step(transformer, inputs(length))
        handle.remove()
    torch.testing.assert_close(refined[1], refined[0][:, :length], rtol=0, atol=TOLERANCE)


def test_what_is_in_the_padding_does_not_matter(ours: torch.nn.Module) -> None:
    clean, dirty = inputs(30), inputs(30)
    dirty["encoder_hidden_states"][:, 30:] = float("nan")
    assert torch.equal(step(ours, dirty), step(ours, clean))


def test_positional_arguments_are_cut_too(stock: torch.nn.Module, ours: torch.nn.Module) -> None:
    given = inputs(30)
    with torch.no_grad():
        found = ours(*given.values()).sample
    torch.testing.assert_close(found, step(stock, given), rtol=0, atol=TOLERANCE)


def test_a_batch_of_several_videos_keeps_its_mask(stock: torch.nn.Module, ours: torch.nn.Module) -> None:
    assert torch.equal(step(ours, inputs(3, 200)), step(stock, inputs(3, 200)))


@pytest.mark.parametrize("seen", [[0] * PADDED, [1, 0, 1] + [0] * (PADDED - 3), [0] * (PADDED - 1) + [1]])
def test_a_mask_that_is_not_padded_on_the_right_is_refused(ours: torch.nn.Module, seen: list[int]) -> None:
    given = inputs(3) | {"encoder_attention_mask": torch.tensor([seen])}
    with pytest.raises(ValueError, match=r"encoder_attention_mask=.*ones and then zeros.*pads on the right"):
        step(ours, given)


def test_a_kernel_that_takes_no_mask_runs(stock: torch.nn.Module) -> None:
    masked = copy.deepcopy(stock)
    for block in (*masked.transformer_blocks, *masked.single_transformer_blocks):
        block.attn.processor._attention_backend = AttentionBackendName._NATIVE_FLASH
    with pytest.raises(ValueError, match="mask"):
        step(masked, inputs(30))
    found = step(mask_free(stock, "native_flash"), inputs(30))
    torch.testing.assert_close(found, step(stock, inputs(30)), rtol=0, atol=TOLERANCE)


def test_other_transformers_are_untouched(stock: torch.nn.Module) -> None:
    before, expected = toy(), step(stock, inputs(30))
    mask_free(stock, "native_flash")
    for other in (before, toy()):
        assert torch.equal(step(other, inputs(30)), expected)
        assert {type(processor).__name__ for processor in other.attn_processors.values()} == {
            "AttnProcessor2_0",
            "HunyuanVideoAttnProcessor2_0",
        }


def test_the_backend_of_other_models_is_untouched(stock: torch.nn.Module) -> None:
    query = torch.randn(1, 8, 2, 16)
    mask = torch.ones(1, 1, 1, 8, dtype=torch.bool)  # native_flash would refuse it
    mask_free(stock, "native_flash")
    assert find_problem("native", "cpu", torch.float32, 16) is None
    assert dispatch_attention_fn(query, query, query, attn_mask=mask).shape == query.shape


def test_two_sizes_get_separate_tables(stock: torch.nn.Module, ours: torch.nn.Module) -> None:
    for size in [(2, 4, 6), (2, 6, 4), (2, 4, 6)]:
        expected = step(stock, inputs(30, size=size))
        torch.testing.assert_close(step(ours, inputs(30, size=size)), expected, rtol=0, atol=TOLERANCE)


def test_rotary_tables_are_computed_once_a_run(ours: torch.nn.Module) -> None:
    tables: list[torch.Tensor] = []
    handle = ours.rope.register_forward_hook(lambda module, args, out: tables.append(out[0]))
    step(ours, inputs(30))
    step(ours, inputs(30))
    ours._reset_stateful_cache()  # as the pipeline does when it frees its hooks
    step(ours, inputs(30))
    handle.remove()
    assert tables[0] is tables[1] and tables[1] is not tables[2]


def sequential_offload(transformer: HunyuanVideoTransformer3DModel) -> None:
    cpu_offload(transformer, execution_device=torch.device("cpu"))


def sequential_offload_and_back(transformer: HunyuanVideoTransformer3DModel) -> None:
    sequential_offload(transformer)
    step(transformer, inputs(30))
    remove_hook_from_module(transformer, recurse=True)


def group_offload(transformer: HunyuanVideoTransformer3DModel) -> None:
    cpu = torch.device("cpu")
    transformer.enable_group_offload(cpu, cpu, offload_type="block_level", num_blocks_per_group=1)


def layerwise_casting(transformer: HunyuanVideoTransformer3DModel) -> None:
    transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)


@pytest.mark.parametrize("placed_first", [True, False])
@pytest.mark.parametrize("place", [sequential_offload, sequential_offload_and_back, group_offload, layerwise_casting])
def test_it_goes_with_ways_to_save_memory(place: Callable, placed_first: bool) -> None:
    stock, ours = toy(), toy()
    place(stock)
    if placed_first:
        place(ours)
    drop_padding(ours, "native_flash")
    keep_rotary_tables(ours)
    run_in_chunks(ours)
    if not placed_first:
        place(ours)
    torch.testing.assert_close(step(ours, inputs(30)), step(stock, inputs(30)), rtol=0, atol=TOLERANCE)


@pytest.fixture(scope="module")
def stock_pipe(tiny: LocalBackend) -> HunyuanVideoPipeline:
    """The built-in checkpoint with the library's own transformer, and the other components shared."""
    tiny.load().prompts.load()
    transformer = HunyuanVideoTransformer3DModel.from_pretrained(tiny.load().folder / "transformer")
    pipe = HunyuanVideoPipeline(**tiny.load().pipe.components | {"transformer": transformer})
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"prompt": " ".join(["red circle moving right,"] * 80)},
        {"negative_prompt": "a blue square", "true_cfg_scale": 2.0},
        {"negative_prompt": "", "true_cfg_scale": 2.0},
    ],
)
def test_a_whole_run_equals_the_librarys(
    tiny: LocalBackend, small_request: GenerationRequest, stock_pipe: HunyuanVideoPipeline, changes: dict
) -> None:
    request = tiny.resolve(small_request.replace(**changes))
    found = denoise.denoise(tiny.load(), request, (144, 80), lambda _: None, lambda _: None, lambda: False).latents
    expected = library_latents(stock_pipe, tiny, request)
    # Latents reach about 4; the rounding of each step is scaled by the guidance and accumulates over the steps.
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0, atol=2e-5)


def only(*working: str) -> Callable[[str], str | None]:
    return lambda name: None if name in working else f"{name} is not installed"


@pytest.mark.parametrize(
    ("capability", "working", "chosen"),
    [
        (None, EXACT, "native"),
        ((8, 6), EXACT, "flash"),
        ((8, 6), ("native", "native_cudnn"), "native"),
        ((9, 0), EXACT, "flash_3"),
        ((9, 0), ("native", "native_cudnn", "flash"), "native"),
        ((9, 0), ("native", "flash", "sage"), "native"),
        ((12, 0), EXACT, "native_cudnn"),
        ((12, 0), ("native", "sage"), "native"),
    ],
)
def test_auto_takes_the_fastest_exact_kernel_that_works(
    capability: tuple[int, int] | None, working: tuple[str, ...], chosen: str
) -> None:
    assert choose_backend("auto", fastest_first(capability), only(*working)) == chosen


@pytest.mark.parametrize("capability", [None, (7, 5), (8, 0), (8, 9), (9, 0), (10, 0), (12, 0)])
def test_auto_never_tries_an_inexact_kernel_or_one_from_the_hub(capability: tuple[int, int] | None) -> None:
    assert set(fastest_first(capability)) <= set(EXACT)


@pytest.mark.parametrize("name", ["sage", "native_cudnn", "flash_3_hub"])
def test_a_kernel_that_is_asked_for_is_taken(name: str) -> None:
    assert choose_backend(name, ("native",), only("native", name)) == name


def test_the_librarys_spelling_is_understood() -> None:
    assert choose_backend("_native_cudnn", ("native",), only("native", "native_cudnn")) == "native_cudnn"


@pytest.mark.parametrize(("name", "reason"), [("sage", "sage is not installed"), ("fast", "not known")])
def test_a_kernel_that_does_not_work_is_refused_with_a_list(name: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        choose_backend(name, ("native",), only("native", "flash"))
    text = str(caught.value)
    assert text.startswith(f"attention_backend={name!r}: {reason}. Use one that works here: auto, native, flash.")
    assert all(f"{other}: {other} is not installed" in text for other in {*EXACT, *INEXACT} - {"native", "flash"})


def test_no_kernel_at_all_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no kernel works here"):
        choose_backend("auto", ("flash", "native"), only())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("head_dim", [32, 128])
def test_native_works_on_a_cpu(dtype: torch.dtype, head_dim: int) -> None:
    assert find_problem("native", "cpu", dtype, head_dim) is None


@pytest.mark.parametrize("name", sorted(set(BACKENDS) - {"native"}))
def test_other_kernels_need_a_cuda_device(name: str) -> None:
    assert find_problem(name, "cpu", torch.float32, 32) == "needs a CUDA device"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_probe_that_fails_says_why() -> None:
    assert find_problem("native", "cuda", torch.bfloat16, 128)


def test_a_probe_that_runs_out_of_memory_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out(*args: torch.Tensor, **options: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB")

    monkeypatch.setattr(kernel_choice, "attend", run_out)
    with pytest.raises(GpuMemoryError, match="Tried to allocate"):
        find_problem("native", "cpu", torch.float32, 32)


def test_probing_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    find_problem("native", "cpu", torch.float32, 32)
    assert torch.equal(torch.rand(1), expected)


def test_a_loaded_model_says_which_kernel_it_uses(tiny: LocalBackend) -> None:
    expected = fastest_first(None)[0]
    assert tiny.load().profile.attention_backend == expected


def test_a_profile_with_a_kernel_that_does_not_work_is_refused_at_the_load(loads_model: None) -> None:
    profile = load_profile("cpu").model_copy(update={"attention_backend": "sage"})
    with pytest.raises(ConfigError, match=r"attention_backend='sage': needs a CUDA device.*works here: auto, native\."):
        load_model(load_model_config("tiny"), profile)
