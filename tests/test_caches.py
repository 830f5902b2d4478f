"""The step caches of ``configs/caches`` on the built-in model, and the benchmarks behind their settings."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import caches
import startup
import warm
from frame_distance import psnr, squared_error, ssim
from right_videos import count_right

from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.backends.local.profile_choice import with_cache
from hunyuan_local.config import FirstBlockCache, cache_names, load_cache, load_model_config, load_profile
from hunyuan_local.pipeline.decode import decode
from hunyuan_local.schema import GenerationRequest

CPU = load_profile("cpu")
TINY = load_model_config("tiny")
REQUEST = GenerationRequest(
    prompt="a red circle moving right on a black background", width=144, height=80, num_frames=5,
    num_inference_steps=30, seed=7,
)  # fmt: skip


# --- The settings ---


@pytest.fixture(scope="module")
def made(tiny: LocalBackend) -> Callable[[str | None], tuple[np.ndarray, int]]:
    """Runs the request once with the named cache: frames, and the number of steps computed in full."""

    @functools.cache
    def make(name: str | None) -> tuple[np.ndarray, int]:
        cache = None if name is None else with_cache(CPU, load_cache(name), TINY).cache
        denoised, full_steps = caches.run(tiny, tiny.resolve(REQUEST), cache)
        return np.concatenate(list(decode(tiny.load(), denoised.latents))), full_steps

    return make


@pytest.mark.parametrize("name", [name for name in cache_names() if name.endswith("conservative")])
def test_a_conservative_cache_skips_half_of_30_steps_and_keeps_30_db(made: Callable, name: str) -> None:
    frames, full_steps = made(name)
    exact, all_steps = made(None)
    assert full_steps <= 14 and all_steps == 30
    assert psnr(squared_error(frames, exact)) >= 30


@pytest.mark.parametrize("kind", ["first-block", "magcache", "taylorseer"])
def test_an_aggressive_cache_skips_more_and_keeps_33_db(made: Callable, kind: str) -> None:
    frames, full_steps = made(f"{kind}-aggressive")
    assert full_steps < made(f"{kind}-conservative")[1]
    assert psnr(squared_error(frames, made(None)[0])) >= 33  # measured: 35.7, 37.6 and 43.0


def test_a_model_has_a_threshold_of_its_own() -> None:
    cache = FirstBlockCache(kind="first-block", threshold=0.06, thresholds={"tiny": 0.2})
    assert with_cache(CPU, cache, TINY).cache == FirstBlockCache(kind="first-block", threshold=0.2)


def test_a_model_without_one_takes_the_threshold_of_all() -> None:
    cache = FirstBlockCache(kind="first-block", threshold=0.06, thresholds={"tiny": 0.2})
    found = with_cache(CPU, cache, load_model_config("hunyuan-video")).cache
    assert found == FirstBlockCache(kind="first-block", threshold=0.06)


def test_the_threshold_of_a_model_that_is_in_the_profile_is_taken_too() -> None:
    cache = FirstBlockCache(kind="first-block", threshold=0.06, thresholds={"tiny": 0.2})
    backend = LocalBackend(TINY, CPU.model_copy(update={"cache": cache}))
    assert backend.profile.cache.threshold == 0.2


def test_a_threshold_of_a_model_has_the_bounds_of_any() -> None:
    with pytest.raises(ValidationError, match=r"thresholds\.tiny"):
        FirstBlockCache(kind="first-block", thresholds={"tiny": 1.5})


# --- Distances ---


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (2, 24, 32, 3), dtype=np.uint8)


def test_equal_frames_have_an_ssim_of_one() -> None:
    assert ssim(noise(0), noise(0)) == pytest.approx(1)


def test_unlike_frames_have_an_ssim_near_zero() -> None:
    assert abs(ssim(noise(0), noise(1))) < 0.1


def test_of_even_frames_only_the_brightness_counts() -> None:
    a, b = np.full((1, 16, 16, 3), 100, np.uint8), np.full((1, 16, 16, 3), 140, np.uint8)
    c1 = (0.01 * 255) ** 2
    assert ssim(a, b) == pytest.approx((2 * 100 * 140 + c1) / (100**2 + 140**2 + c1))


def test_the_window_is_eleven_pixels_with_a_sigma_of_one_and_a_half() -> None:
    """One window, so that the whole sum can be written out."""
    a, b = (noise(seed)[:1, :11, :11, :1].astype(float) for seed in (0, 1))
    weights = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    weights = np.outer(weights, weights)[None, :, :, None] / weights.sum() ** 2
    mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
    variances = (weights * (a - mean_a) ** 2).sum() + (weights * (b - mean_b) ** 2).sum()
    covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    expected = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    expected /= (mean_a**2 + mean_b**2 + c1) * (variances + c2)
    assert ssim(a.astype(np.uint8), b.astype(np.uint8)) == pytest.approx(expected)


def test_pictures_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="same shape"):
        ssim(noise(0), noise(0)[:1])


# --- The benchmarks ---


def test_the_benchmark_writes_a_table_figures_and_a_plot(starts_process: None, tmp_path: Path) -> None:
    caches.main(
        ["--profile", "cpu", "--steps", "8", "--frames", "5", "--prompt", REQUEST.prompt, "--no-grid", "--whole", "1",
         "--settings", "taylorseer-conservative", "--output", str(tmp_path / "caches.txt")]
    )  # fmt: skip
    exact, cached = json.loads((tmp_path / "caches.json").read_text())["rows"]
    assert (exact["name"], cached["name"]) == ("", "taylorseer-conservative")
    assert (exact["full_steps"], exact["psnr_db"], exact["ssim"]) == ([8], None, [pytest.approx(1)])
    assert cached["full_steps"] == [4] and cached["psnr_db"] > 30 and 0.5 < cached["ssim"][0] < 1
    assert len(exact["whole_s"]) == len(cached["whole_s"]) == 1
    assert "taylorseer-conservative" in (tmp_path / "caches.txt").read_text()
    assert Image.open(tmp_path / "caches.png").size == (1080, 720)


def test_a_cache_of_the_benchmark_is_gone_afterwards(tiny: LocalBackend) -> None:
    before = tiny.load()
    with caches.cached(tiny, load_cache("taylorseer-aggressive")):
        assert tiny.load().profile.cache is not None
    assert tiny.load() is before and before.profile.cache is None


def test_the_benchmark_does_not_list_a_setting_twice(tiny: LocalBackend) -> None:
    settings = [row.setting for row in caches.rows(tiny, with_grid=True, part_of_name="")]
    assert len(settings) == len(set(settings)) > 15


def test_videos_are_judged_with_the_cache(starts_process: None, tiny: LocalBackend) -> None:
    with caches.cached(tiny, load_cache("taylorseer-conservative")):
        assert count_right(tiny, steps=8, count=1) == 1


def test_a_known_prompt_needs_no_text_encoder(starts_process: None, tiny: LocalBackend) -> None:
    backend = LocalBackend("tiny", "cpu")
    request = backend.resolve(REQUEST.replace(num_inference_steps=2))
    first, second = warm.measure(backend, request, 1)
    assert first.encoder_calls == 2 and second.encoder_calls == 0
    assert replace(first, total_s=2 + first.total_s).startup_s == pytest.approx(2 + first.startup_s)


def test_a_start_is_compared_by_medians() -> None:
    found = [startup.Command("ours", [], [1, 2, 30]), startup.Command(startup.AGAINST, [], [30, 10, 20])]
    lines = startup.table(found, 3).splitlines()
    assert lines[-2].split()[-1] == "0.100" and lines[-1].split()[-1] == "1.000"
