"""Compiled blocks and step caches: off by default, compiled once, removed completely."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import image_models
import numpy as np
import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel
from diffusers.hooks import FirstBlockCacheConfig, TaylorSeerCacheConfig
from diffusers.hooks.hooks import CacheContext
from pydantic import ValidationError

from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.config import (
    CacheConfig,
    FirstBlockCache,
    MagCache,
    RuntimeProfile,
    TaylorSeerCache,
    load_profile,
    profile_names,
)
from hunyuan_local.errors import ConfigError, GenerationCancelledError, InvalidOutputError
from hunyuan_local.pipeline import decode, denoise
from hunyuan_local.pipeline.acceleration import (
    RESUMED_WITH_CACHE,
    compile_blocks,
    measured_mag_ratios,
    resampled_ratios,
    step_cache,
)
from hunyuan_local.pipeline.attention.mask_free import drop_padding
from hunyuan_local.pipeline.attention.rotary import keep_rotary_tables
from hunyuan_local.pipeline.diffusers_private import first_block_hook
from hunyuan_local.pipeline.model import facts_of
from hunyuan_local.schema import GenerationRequest, Progress

REQUEST = GenerationRequest(
    prompt="a red circle moving right on a black background", width=144, height=80, num_frames=5,
    num_inference_steps=8, seed=7,
)  # fmt: skip
# Measured with benchmarks/caches.py --calibrate --steps 8.
MAG_RATIOS = (1.0, 1.0, 1.0, 0.96, 0.94, 0.91, 0.87, 0.74)
CACHES = {
    "first-block": FirstBlockCache(kind="first-block", threshold=0.2),
    "taylorseer": TaylorSeerCache(kind="taylorseer"),
    "magcache": MagCache(kind="magcache", mag_ratios=MAG_RATIOS),
}
every_cache = pytest.mark.parametrize("cache", CACHES.values(), ids=CACHES.keys())


def ignore(reported: object) -> None:
    pass


class Run:
    """Denoises with a cache on the built-in checkpoint, and counts the steps that are computed in full."""

    def __init__(self, tiny: LocalBackend):
        self.tiny = tiny
        self.transformer = tiny.load().pipe.transformer
        self.full_steps = 0

    def __call__(
        self,
        cache: CacheConfig | None,
        request: GenerationRequest = REQUEST,
        on_progress: Callable[[Progress], None] = ignore,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> torch.Tensor:
        model = self.tiny.load()
        model = replace(model, profile=model.profile.model_copy(update={"cache": cache}))
        self.full_steps = 0
        handle = self.transformer.single_transformer_blocks[-1].attn.register_forward_hook(self._count)
        try:
            return denoise.denoise(
                model, self.tiny.resolve(request), (144, 80), on_progress, ignore, is_cancelled
            ).latents
        finally:
            handle.remove()

    def _count(self, *call: object) -> None:
        self.full_steps += 1


@pytest.fixture
def run(tiny: LocalBackend) -> Run:
    return Run(tiny)


def decoded(tiny: LocalBackend, latents: torch.Tensor) -> np.ndarray:
    return np.concatenate(list(decode.decode(tiny.load(), latents))).astype(float)


@dataclass
class Exact:
    """The result of a run without a cache."""

    full_steps: int
    frames: np.ndarray


@pytest.fixture(scope="module")
def exact(tiny: LocalBackend) -> Callable[[GenerationRequest], Exact]:
    """Generates it once per request."""

    @functools.cache
    def make(request: GenerationRequest) -> Exact:
        run = Run(tiny)
        return Exact(frames=decoded(tiny, run(None, request)), full_steps=run.full_steps)

    return make


@pytest.fixture(scope="module")
def first(tiny: LocalBackend) -> Callable[[CacheConfig | None], torch.Tensor]:
    """Latents of a first run with this cache, computed once."""
    made: dict[str | None, torch.Tensor] = {}

    def latents(cache: CacheConfig | None) -> torch.Tensor:
        kind = None if cache is None else cache.kind
        if kind not in made:
            made[kind] = Run(tiny)(cache)
        return made[kind]

    return latents


def psnr(found: np.ndarray, expected: np.ndarray) -> float:
    return 10 * math.log10(255**2 / np.mean((found - expected) ** 2))


# --- The profile ---


@pytest.mark.parametrize("name", profile_names())
def test_the_shipped_profiles_neither_compile_nor_cache(name: str) -> None:
    profile = load_profile(name)
    assert (profile.attention_backend, profile.compile, profile.cache) == ("auto", False, None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cache": {"kind": "teacache"}}, r"'first-block', 'taylorseer', 'magcache'"),
        ({"cache": {"kind": "first-block", "interval": 3}}, r"interval"),
        ({"cache": {"kind": "first-block", "threshold": 1.5}}, r"less than 1"),
        ({"cache": {"kind": "taylorseer", "interval": 1}}, r"greater than or equal to 2"),
        ({"cache": {"kind": "taylorseer", "start": 0.5, "end": 0.5}}, r"start=0\.5 must be below end=0\.5"),
        ({"compile": True, "offload": "sequential"}, r"compile=True cannot be combined with offload='sequential'"),
        (
            {"compile": True, "cache": {"kind": "magcache", "mag_ratios": [1, 0.9]}},
            r"compile=True cannot be combined with cache\.kind='magcache'",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RuntimeProfile(**load_profile("cpu").model_dump() | fields)


@every_cache
def test_a_cache_survives_the_way_through_a_profile(cache: CacheConfig) -> None:
    profile = RuntimeProfile(**load_profile("cpu").model_dump() | {"cache": cache.model_dump()})
    assert RuntimeProfile.model_validate_json(profile.model_dump_json()).cache == cache


# --- Compiled blocks ---


def toy(kind: str | None = None) -> HunyuanVideoTransformer3DModel:
    """One block of each kind; two single blocks, because the second one's input has another memory layout."""
    torch.manual_seed(0)
    transformer = HunyuanVideoTransformer3DModel(
        image_condition_type=kind, in_channels=16 if kind is None else image_models.CHANNELS[kind],
        num_attention_heads=1, attention_head_dim=16, num_layers=1, num_single_layers=2, num_refiner_layers=1,
        text_embed_dim=24, pooled_projection_dim=12, rope_axes_dim=(4, 6, 6),
    ).eval()  # fmt: skip
    drop_padding(transformer, "native")
    keep_rotary_tables(transformer)
    return transformer


@torch.no_grad()
def step(transformer: HunyuanVideoTransformer3DModel, length: int, size: tuple[int, int, int]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(length)
    with transformer.cache_context("cond"):
        return transformer(
            hidden_states=torch.randn(1, transformer.config.in_channels, *size, generator=generator),
            timestep=torch.tensor([500.0]),
            encoder_hidden_states=torch.randn(1, 256, 24, generator=generator),
            encoder_attention_mask=(torch.arange(256) < length)[None].float(),
            pooled_projections=torch.randn(1, 12, generator=generator),
            guidance=torch.tensor([6000.0]),
            return_dict=False,
        )[0]


class CountingBackend:
    """A backend of torch.compile that runs graphs as they are, and counts them."""

    def __init__(self) -> None:
        self.compiled = self.executed = 0

    def __call__(self, graph: torch.fx.GraphModule, examples: list) -> Callable:
        self.compiled += 1

        def execute(*args: object) -> object:
            self.executed += 1
            return graph.forward(*args)

        return execute


@pytest.fixture(scope="module")
def compiled(loads_model: None) -> Iterator[tuple[HunyuanVideoTransformer3DModel, CountingBackend]]:
    """A transformer whose blocks were compiled for a prompt of 17 tokens and a size with unequal sides."""
    torch._dynamo.reset()
    transformer, backend = toy(), CountingBackend()
    compile_blocks(transformer, "cpu", backend)
    step(transformer, 17, (5, 4, 6))
    yield transformer, backend
    torch._dynamo.reset()


@pytest.mark.parametrize("length", [2, 18, 100, 256])
def test_a_prompt_of_another_length_compiles_nothing(compiled: tuple, length: int) -> None:
    transformer, backend = compiled
    compiled_before, executed_before = backend.compiled, backend.executed
    step(transformer, length, (5, 4, 6))
    assert backend.compiled == compiled_before > 0
    assert backend.executed - executed_before >= 3  # every block ran as compiled


@pytest.mark.parametrize("size", [(2, 4, 6), (3, 6, 4), (9, 8, 8)])
def test_a_video_of_another_size_compiles_nothing(compiled: tuple, size: tuple[int, int, int]) -> None:
    transformer, backend = compiled
    before = backend.compiled
    step(transformer, 40, size)
    assert backend.compiled == before > 0


@pytest.mark.parametrize("length", [2, 40, 256])
def test_compiled_blocks_give_the_same_step(compiled: tuple, length: int) -> None:
    expected = step(toy(), length, (5, 4, 6))
    torch.testing.assert_close(step(compiled[0], length, (5, 4, 6)), expected, rtol=0, atol=2e-6)


@pytest.mark.usefixtures("loads_model")
@pytest.mark.parametrize("kind", image_models.CHANNELS)
def test_blocks_of_image_to_video_compile_once_and_give_the_same_step(kind: str) -> None:
    torch._dynamo.reset()
    transformer, backend = toy(kind), CountingBackend()
    compile_blocks(transformer, "cpu", backend)
    step(transformer, 17, (5, 4, 6))
    before = backend.compiled
    for length, size in ((40, (3, 6, 4)), (100, (9, 8, 8))):
        torch.testing.assert_close(step(transformer, length, size), step(toy(kind), length, size), rtol=0, atol=2e-6)
    assert backend.compiled == before > 0
    torch._dynamo.reset()


def test_a_compiler_that_does_not_work_is_an_error_at_once() -> None:
    def broken(graph: torch.fx.GraphModule, examples: list) -> Callable:
        raise RuntimeError("no compiler found")

    with pytest.raises(
        ConfigError, match=r"compile=True: torch\.compile does not work.*C\+\+ compiler.*compile: false"
    ):
        compile_blocks(toy(), "cpu", broken)


# --- Step caches ---


@every_cache
def test_a_cache_skips_steps_and_stays_near_the_exact_run(
    tiny: LocalBackend, run: Run, exact: Callable[[GenerationRequest], Exact], cache: CacheConfig
) -> None:
    found, full_steps = run(cache), run.full_steps
    assert 2 <= full_steps < 8 == exact(REQUEST).full_steps
    assert psnr(decoded(tiny, found), exact(REQUEST).frames) > 30


@every_cache
def test_the_second_run_is_as_the_first(run: Run, first: Callable, cache: CacheConfig) -> None:
    expected = first(cache)
    run(cache, REQUEST.replace(seed=8, prompt="a blue square moving up on a grey background"))
    assert torch.equal(run(cache), expected)


@every_cache
def test_a_run_without_a_cache_is_exact_again(run: Run, first: Callable, cache: CacheConfig) -> None:
    expected = first(None)
    run(cache)
    assert torch.equal(run(None), expected)


@every_cache
def test_nothing_is_left_after_a_cancelled_run(run: Run, first: Callable, cache: CacheConfig) -> None:
    expected, steps = first(cache), [0]
    with pytest.raises(GenerationCancelledError):
        run(cache, on_progress=lambda p: steps.append(p.step), is_cancelled=lambda: max(steps) >= 5)
    assert not run.transformer.is_cache_enabled
    assert torch.equal(run(cache), expected)


@every_cache
def test_nothing_is_left_after_a_failed_run(run: Run, first: Callable, cache: CacheConfig) -> None:
    expected, weight = first(cache), run.transformer.proj_out.weight
    kept = weight.data.clone()

    def spoil(progress: Progress) -> None:
        if progress.step == 3:
            weight.data[0, 0] = float("nan")

    try:
        with pytest.raises(InvalidOutputError):
            run(cache, on_progress=spoil)
    finally:
        weight.data.copy_(kept)
    assert not run.transformer.is_cache_enabled
    assert torch.equal(run(cache), expected)


@pytest.mark.parametrize(
    ("residuals", "threshold", "computed"),
    [
        ((1.0, 1.05, 1.2, 1.2), 0.1, [True, False, True, False]),  # compared with the last full step
        ((float("nan"), float("nan"), 1.0, 1.0), 0.1, [True, True, True, False]),
        ((1.0, float("nan")), 0.1, [True, True]),
        ((float("inf"), float("inf"), 1.0), 0.1, [True, True, True]),  # inf / inf
        ((0.0, 0.0), 0.1, [True, True]),  # 0 / 0
        ((1.0, 1.0, float("nan")), -1.0, [True, True, True]),  # outside of start and end
    ],
)
def test_a_first_block_cache_skips_only_a_change_that_is_a_small_number(
    residuals: tuple[float, ...], threshold: float, computed: list[bool]
) -> None:
    transformer = toy()
    transformer.enable_cache(FirstBlockCacheConfig(threshold=threshold))
    head = first_block_hook(transformer.transformer_blocks[0])
    head.state_manager.set_context(CacheContext(name="cond"))
    state, found = head.state_manager.get_state(), []
    for value in residuals:
        residual = torch.full((1, 4, 8), value)
        found.append(head._should_compute_remaining_blocks(residual))
        if found[-1]:  # as the hooks of the first and the last block keep them
            state.head_block_residual, state.tail_block_residuals = residual, (residual, None)
    assert found == computed


@every_cache
def test_another_number_of_steps_is_another_plan(run: Run, cache: CacheConfig) -> None:
    run(cache)
    request = REQUEST.replace(num_inference_steps=4)
    run(cache, request)
    assert run.full_steps <= 4
    assert torch.isfinite(run(cache, request)).all()


@every_cache
def test_true_cfg_keeps_a_cache_for_each_prompt(
    tiny: LocalBackend, run: Run, exact: Callable[[GenerationRequest], Exact], cache: CacheConfig
) -> None:
    request = REQUEST.replace(negative_prompt="a blue square", true_cfg_scale=2.0)
    found, full_steps = run(cache, request), run.full_steps
    assert full_steps < 16
    assert psnr(decoded(tiny, found), exact(request).frames) > 30


@pytest.mark.parametrize(
    ("cache", "full_steps"),
    [
        # The highest threshold: every step that may be skipped is skipped.
        (FirstBlockCache(kind="first-block", threshold=0.999, start=0.5, end=0.75), 6),
        (FirstBlockCache(kind="first-block", threshold=0.999, start=0.25), 2),
        (FirstBlockCache(kind="first-block", threshold=0.999, start=0.15), 2),  # step 1 begins at 0.125
        (MagCache(kind="magcache", mag_ratios=(1.0,) * 8, start=0.5, end=0.75), 6),
        (MagCache(kind="magcache", mag_ratios=(1.0, 1.0), max_skips=9, start=0.25), 2),
        (TaylorSeerCache(kind="taylorseer", interval=8, start=0.25, end=0.75), 5),  # step 3 is the next of the series
        (TaylorSeerCache(kind="taylorseer", interval=8, order=2, start=0.0), 4),  # three steps for order 2
    ],
)
def test_steps_are_skipped_only_between_start_and_end(run: Run, cache: CacheConfig, full_steps: int) -> None:
    run(cache)
    assert run.full_steps == full_steps


def test_taylorseer_skips_as_the_librarys_lite_mode_does_but_embeds_nothing(run: Run) -> None:
    found = run(CACHES["taylorseer"])
    embedded: list[None] = []
    run.transformer.enable_cache(
        TaylorSeerCacheConfig(
            cache_interval=3, disable_cache_before_step=2, disable_cache_after_step=8, max_order=1,
            taylor_factors_dtype=torch.float32, use_lite_mode=True,
        )
    )  # fmt: skip
    try:
        assert torch.equal(run(None), found)
    finally:
        run.transformer.disable_cache()
    with ExitStack() as stack:
        for module in (run.transformer.x_embedder.proj, run.transformer.context_embedder.proj_in):
            stack.callback(module.register_forward_hook(lambda *call: embedded.append(None)).remove)
        run(CACHES["taylorseer"])
    assert len(embedded) == 2 * run.full_steps < 16


def test_ratios_of_as_many_steps_are_kept() -> None:
    np.testing.assert_allclose(resampled_ratios(MAG_RATIOS, 8), MAG_RATIOS, rtol=1e-6)


def test_ratios_of_many_steps_foretell_those_of_few(tiny: LocalBackend) -> None:
    assert len(tiny.config.mag_ratios) == 30
    np.testing.assert_allclose(resampled_ratios(tiny.config.mag_ratios, 8), MAG_RATIOS, atol=0.03)


def test_ratios_of_twice_as_many_steps_multiply_to_the_same() -> None:
    found = resampled_ratios((1.0, 0.9, 0.8, 0.7), 8)
    np.testing.assert_allclose(found[1::2][:3] * found[2::2], (0.9, 0.8, 0.7), rtol=1e-6)
    assert found[0] == 1 and found[7] == pytest.approx(0.7**0.5)


@pytest.mark.parametrize("kind", CACHES)
def test_what_is_left_of_a_run_keeps_its_place(tiny: LocalBackend, kind: str) -> None:
    """Ten steps with ``start: 0.8``, resumed after five: three more are computed in full."""
    pipe = tiny.load().pipe
    lax = {} if kind == "taylorseer" else {"threshold": 0.999}
    cache = CACHES[kind].model_copy(update={"start": 0.8, "end": 1.0} | lax)
    request = tiny.resolve(REQUEST.replace(num_inference_steps=5))
    seen: list[int] = []
    handle = pipe.transformer.single_transformer_blocks[-1].attn.register_forward_hook(
        lambda *call: seen.append(pipe.scheduler.step_index or 0)
    )
    with ExitStack() as stack:
        stack.callback(handle.remove)
        stack.enter_context(step_cache(pipe, cache, 5, 10))
        denoise.denoise(tiny.load(), request, (144, 80), ignore, ignore, lambda: False)
    assert seen[:3] == [0, 1, 2] and len(seen) < 5


def test_resuming_with_a_cache_is_reported_as_inexact(starts_process: None, tiny: LocalBackend, tmp_path: Path) -> None:
    backend = LocalBackend(tiny.config, "cpu")
    profile = backend.load().profile
    backend.kept.loaded = replace(backend.load(), profile=profile.model_copy(update={"cache": CACHES["taylorseer"]}))
    notes: list[str] = []

    def context() -> GenerationContext:
        return GenerationContext(tmp_path / "a.mp4", checkpoint_dir=tmp_path, checkpoint_every=1, on_note=notes.append)

    cancelled = context()
    cancelled.on_progress = lambda p: cancelled.cancel.set() if p.step == 4 else None
    with pytest.raises(GenerationCancelledError):
        backend.generate(REQUEST, cancelled)
    assert RESUMED_WITH_CACHE not in notes
    assert RESUMED_WITH_CACHE in backend.generate(REQUEST, context()).notes


def test_going_on_without_a_cache_is_exact_and_says_nothing(
    starts_process: None, tiny: LocalBackend, tmp_path: Path
) -> None:
    context = GenerationContext(tmp_path / "a.mp4", checkpoint_dir=tmp_path, checkpoint_every=1)
    context.on_progress = lambda p: context.cancel.set() if p.step == 4 else None
    with pytest.raises(GenerationCancelledError):
        tiny.generate(REQUEST, context)
    again = tiny.generate(REQUEST, GenerationContext(tmp_path / "a.mp4", checkpoint_dir=tmp_path))
    assert RESUMED_WITH_CACHE not in again.notes
    whole = tiny.generate(REQUEST, GenerationContext(tmp_path / "b.mp4"))
    assert again.provenance["frames_sha256"] == whole.provenance["frames_sha256"]


def test_the_state_of_a_run_with_a_cache_is_not_resumed_without_it(tiny: LocalBackend) -> None:
    model, request = tiny.load(), tiny.resolve(REQUEST)
    cached = replace(model, profile=model.profile.model_copy(update={"cache": CACHES["taylorseer"]}))
    facts = [facts_of(m, request) for m in (model, cached)]
    assert facts[0].keys() == facts[1].keys()
    assert {name for name in facts[0] if facts[0][name] != facts[1][name]} == {"profile"}


def test_calibrating_gives_a_ratio_a_step(run: Run) -> None:
    with measured_mag_ratios(run.transformer) as ratios:
        latents = run(None)
    assert len(ratios) == 8 and ratios[0] == 1.0
    np.testing.assert_allclose(ratios, MAG_RATIOS, atol=0.1)
    assert torch.equal(run(None), latents)


def test_calibrating_measures_what_the_library_measures(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    from diffusers.hooks import MagCacheConfig

    with measured_mag_ratios(run.transformer) as ratios:
        run(None)
    run.transformer.enable_cache(MagCacheConfig(calibrate=True, num_inference_steps=8))
    try:
        run(None)
    finally:
        run.transformer.disable_cache()
    printed = capsys.readouterr().out.split("[1.0")[1].split("]")[0]
    np.testing.assert_allclose(ratios[1:], [float(x) for x in printed.split(",")[1:]], rtol=1e-4)
