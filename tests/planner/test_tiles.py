"""Tiles chosen for an amount of memory: they fit, they are the cheapest, and smaller ones come next."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from live_tensors import LARGE

from hunyuan_local.config import GIB
from hunyuan_local.config.tiling import TILED, UNTILED, Tiling
from hunyuan_local.errors import ConfigError
from hunyuan_local.planner.architecture import Autoencoder
from hunyuan_local.planner.decoding import Decode, largest_tensor, trace_decode
from hunyuan_local.planner.plan import MAX_ELEMENTS
from hunyuan_local.planner.tiles import SHRINK, candidates, choose_tiling, needed_bytes, smaller, tile_costs
from hunyuan_local.planner.trace import Cost

VAE = Autoencoder.model_validate(LARGE["vae"])
# Frames, height and width of the latents: 720p of 129 frames, upright 540p, a square, a strip, one image, a thumbnail.
SIZES = [(33, 90, 160), (33, 120, 68), (17, 90, 90), (9, 16, 160), (1, 90, 160), (9, 10, 18)]
FREE = [0.7, 1.5, 3, 5, 10, 20, 40, 80]


def cost(latents: tuple[int, int, int], tiling: Tiling) -> Cost:
    return trace_decode(VAE, Decode(latents, 2, tiling))


@pytest.mark.parametrize("latents", SIZES)
@pytest.mark.parametrize("free_gib", FREE)
def test_what_is_chosen_fits_or_is_the_last_resort(latents: tuple[int, int, int], free_gib: float) -> None:
    chosen = choose_tiling(VAE, latents, 2, round(free_gib * GIB))
    fits = needed_bytes(cost(latents, chosen).peak_bytes) <= free_gib * GIB
    assert fits or chosen == tile_costs(VAE, latents, 2)[-1].tiling


def test_a_video_of_720p_fits_a_gigabyte() -> None:
    chosen = choose_tiling(VAE, SIZES[0], 2, GIB)
    assert needed_bytes(cost(SIZES[0], chosen).peak_bytes) <= GIB


def test_a_share_of_the_free_memory_is_left_to_fragmentation() -> None:
    peak = cost(SIZES[0], UNTILED).peak_bytes
    assert choose_tiling(VAE, SIZES[0], 2, peak) != UNTILED
    assert choose_tiling(VAE, SIZES[0], 2, round(1.05 * peak)) == UNTILED


@pytest.mark.parametrize("latents", SIZES)
def test_more_memory_never_costs_more_operations(latents: tuple[int, int, int]) -> None:
    flops = [cost(latents, choose_tiling(VAE, latents, 2, round(free * GIB))).flops for free in FREE]
    assert flops == sorted(flops, reverse=True)


@pytest.mark.parametrize("latents", SIZES)
def test_ample_memory_leaves_the_picture_whole(latents: tuple[int, int, int]) -> None:
    assert choose_tiling(VAE, latents, 2, 1000 * GIB) == UNTILED


@pytest.mark.parametrize("free_gib", [0.8, 1.2, 2, 4])
def test_no_candidate_that_fits_is_cheaper(free_gib: float) -> None:
    latents = (9, 40, 64)
    free_bytes = round(free_gib * GIB)
    costs = [cost(latents, tiling) for tiling in candidates(latents)]
    cheapest = min(found.flops for found in costs if needed_bytes(found.peak_bytes) <= free_bytes)
    assert cost(latents, choose_tiling(VAE, latents, 2, free_bytes)).flops == cheapest


def test_with_the_memory_of_the_librarys_tiles_it_costs_no_more_than_they_do() -> None:
    library = cost(SIZES[0], TILED)
    chosen = choose_tiling(VAE, SIZES[0], 2, needed_bytes(library.peak_bytes))
    assert cost(SIZES[0], chosen).flops <= library.flops


def test_with_four_times_that_memory_it_costs_a_quarter_less() -> None:
    library = cost(SIZES[0], TILED)
    chosen = choose_tiling(VAE, SIZES[0], 2, 4 * needed_bytes(library.peak_bytes))
    assert cost(SIZES[0], chosen).flops < 0.75 * library.flops


@pytest.mark.parametrize("latents", SIZES)
def test_no_tile_is_a_sliver(latents: tuple[int, int, int]) -> None:
    sides = {
        side for found in tile_costs(VAE, latents, 2) for area in found.tiling.areas(*latents[1:]) for side in area
    }
    assert min(sides) >= min(8, *latents[1:])


def test_temporal_tiles_are_the_librarys_where_memory_is_not_small() -> None:
    assert {choose_tiling(VAE, SIZES[0], 2, free * GIB).frames for free in (3, 4, 8, 16, 32, 80)} == {16}


def test_temporal_tiles_get_shorter_where_it_is() -> None:
    assert choose_tiling(VAE, SIZES[0], 2, GIB).frames < 16


def test_unknown_memory_takes_what_is_given_for_it() -> None:
    assert choose_tiling(VAE, SIZES[0], 2, None, default=TILED) == TILED


def test_unknown_memory_never_takes_tensors_that_no_kernel_takes() -> None:
    chosen = choose_tiling(VAE, SIZES[0], 2, None, max_elements=MAX_ELEMENTS, default=UNTILED)
    assert largest_tensor(VAE, Decode(SIZES[0], 2, chosen)) <= MAX_ELEMENTS


def test_every_tiling_considered_keeps_to_the_limit_of_elements() -> None:
    found = tile_costs(VAE, SIZES[0], 2, MAX_ELEMENTS)
    assert all(largest_tensor(VAE, Decode(SIZES[0], 2, item.tiling)) <= MAX_ELEMENTS for item in found)


def test_without_that_limit_larger_tiles_are_considered() -> None:
    assert tile_costs(VAE, SIZES[0], 2)[0].tiling == UNTILED != tile_costs(VAE, SIZES[0], 2, MAX_ELEMENTS)[0].tiling


@pytest.mark.parametrize("start", [UNTILED, TILED, Tiling(height=128, width=None), Tiling(frames=32)])
def test_after_memory_ran_out_each_next_tiling_needs_clearly_less_down_to_the_smallest(start: Tiling) -> None:
    chain = [start]
    while (following := smaller(chain[-1], VAE, SIZES[0], 2)) is not None:
        chain.append(following)
    peaks = [cost(SIZES[0], tiling).peak_bytes for tiling in chain]
    assert all(after <= SHRINK * before for before, after in pairwise(peaks[:-1]))
    assert peaks[-1] < peaks[-2]
    assert chain[-1] == tile_costs(VAE, SIZES[0], 2)[-1].tiling


def test_the_next_tiling_is_the_cheapest_that_needs_clearly_less() -> None:
    peak = cost(SIZES[0], TILED).peak_bytes
    following = smaller(TILED, VAE, SIZES[0], 2)
    assert following == next(item.tiling for item in tile_costs(VAE, SIZES[0], 2) if item.peak_bytes <= SHRINK * peak)


def test_tiles_smaller_than_all_considered_have_no_next() -> None:
    assert smaller(Tiling(128, 128, frames=8), VAE, (33, 32, 32), 2) is None


def test_a_picture_that_cannot_be_cut_can_still_be_cut_in_time() -> None:
    following = smaller(UNTILED, VAE, (9, 10, 18), 2)
    assert following == replace(UNTILED, frames=8)


@pytest.mark.parametrize(
    ("sizes", "field"),
    [
        ({"height": 100}, "height=100"),
        ({"width": 0}, "width=0"),
        ({"overlap": 20}, "overlap=20"),
        ({"overlap": 0}, "overlap=0"),
        ({"frames": 10}, "frames=10"),
        ({"frames_overlap": 3}, "frames_overlap=3"),
        ({"width": 120}, "width=120"),
        ({"frames": 4}, "frames=4"),
    ],
)
def test_sizes_that_cannot_be_tiled_are_refused_by_name(sizes: dict[str, int], field: str) -> None:
    with pytest.raises(ConfigError, match=f"^{field}: "):
        Tiling(**sizes)
