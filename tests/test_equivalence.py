"""Every way to run the built-in model compared with diffusers' own pipeline: the benchmark on a short video."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import equivalence
from equivalence import REQUESTS, Measured, References, Way, holds, library_pipeline, measure, table, ways

from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.schema import GenerationRequest

# test_acceleration.py compares compiled blocks with the library, test_quantization.py fewer bits and
# test_caches.py step caches, where each is cheapest.
ELSEWHERE = {"compile", "quantization", "cache"}
WAYS = [way for way in ways() if ELSEWHERE.isdisjoint(way.profile)]
SHORT = REQUESTS[0].replace(num_frames=5, num_inference_steps=4)


@pytest.fixture(scope="module")
def expected(tiny: LocalBackend) -> Callable[[GenerationRequest], References]:
    """The library's frames of a request, generated once."""
    library = library_pipeline(tiny)
    return functools.cache(lambda request: equivalence.references(library, tiny, [request]))


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_a_way_keeps_its_bound(way: Way, expected: Callable[[GenerationRequest], References]) -> None:
    found = measure(way, expected(SHORT.replace(num_frames=1) if way.mosaic else SHORT))
    assert holds(way, found), found


def test_every_way_has_a_profile_of_its_own() -> None:
    profiles = [way.backend().profile for way in ways()]
    assert [profile.name for profile in profiles] == [way.name for way in ways()]


def test_every_kind_of_offload_precision_and_cache_is_in_the_table() -> None:
    profiles = [way.profile for way in ways()]
    assert {profile.get("offload") for profile in profiles} >= {"model", "group", "sequential"}
    assert {profile.get("quantization") for profile in profiles} >= {"fp8", "fp8-weights", "int8", "int8-dynamic"}
    kinds = [cache.kind for profile in profiles if (cache := profile.get("cache"))]
    assert {kind: kinds.count(kind) for kind in kinds} == {"first-block": 2, "magcache": 2, "taylorseer": 2}


@pytest.mark.parametrize(("largest", "held"), [(1, True), (2, False)])
def test_an_exact_way_is_held_to_its_levels(largest: int, held: bool) -> None:
    assert holds(Way("x", levels=1), Measured(largest, 0.1)) is held


@pytest.mark.parametrize(("mean_square", "held"), [(1.0, True), (100.0, False)])
def test_a_lossy_way_is_held_to_its_psnr(mean_square: float, held: bool) -> None:
    assert holds(Way("x", least_psnr_db=40), Measured(255, mean_square)) is held


def test_the_table_fits_a_terminal_and_shows_what_failed() -> None:
    row = {"way": "cache taylorseer-conservative", "largest": 255, "psnr_db": 31.4, "bound": "40 dB", "held": False,
           "quality": 97.2}  # fmt: skip
    lines = table([row]).splitlines()
    assert max(map(len, lines)) <= 80 and " NO " in lines[1] and "97 %" in lines[1]


def test_the_quality_is_that_of_the_videos_it_makes(starts_process: None) -> None:
    assert equivalence.quality(Way("x"), 1) == 100.0
