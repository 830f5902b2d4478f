"""The planner's autoencoder against the real class: operations exactly, live bytes to a hundredth."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo
from live_tensors import LARGE, attention, autoencoder, counted_flops, live_peak, tiny_config

from hunyuan_local.planner.architecture import Autoencoder
from hunyuan_local.planner.decoding import TILED, UNTILED, Decode, explain_peak, largest_tensor, trace_decode

LARGE_VAE = Autoencoder.model_validate(LARGE["vae"])
CASES = [
    ("large", (5, 90, 160), False),
    ("large", (17, 34, 60), False),
    ("large", (9, 36, 40), True),
    ("large", (3, 16, 16), True),
    ("tiny", (5, 10, 18), False),
    ("tiny", (9, 36, 40), True),
]


@cache
def real(kind: str) -> AutoencoderKLHunyuanVideo:
    if kind == "large":
        return autoencoder(LARGE["vae"], torch.float16)
    return autoencoder(tiny_config("vae"), torch.float32)


def decode(kind: str, latents: tuple[int, int, int], tiled: bool) -> torch.Tensor:
    model = real(kind)
    model.use_tiling = tiled
    return model.decode(torch.empty(1, 16, *latents, dtype=model.dtype, device="meta"), return_dict=False)[0]


def traced(kind: str, latents: tuple[int, int, int], tiled: bool) -> tuple[Autoencoder, Decode]:
    config = LARGE_VAE if kind == "large" else Autoencoder.model_validate(tiny_config("vae"))
    return config, Decode(latents, 2 if kind == "large" else 4, TILED if tiled else UNTILED, streams=False)


@pytest.mark.parametrize(("kind", "latents", "tiled"), CASES)
def test_operations_are_those_that_torch_counts(kind: str, latents: tuple[int, int, int], tiled: bool) -> None:
    assert trace_decode(*traced(kind, latents, tiled)).flops == counted_flops(lambda: decode(kind, latents, tiled))


@pytest.mark.parametrize(("kind", "latents", "tiled"), CASES)
def test_the_peak_is_that_of_the_real_decoding(
    kind: str, latents: tuple[int, int, int], tiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
    peak = live_peak(real(kind), lambda: decode(kind, latents, tiled))
    assert trace_decode(*traced(kind, latents, tiled)).peak_bytes == pytest.approx(peak, rel=0.01)


def test_tiling_lowers_the_peak() -> None:
    tiled, untiled = (trace_decode(LARGE_VAE, Decode((33, 90, 160), tiling=tiling)) for tiling in (TILED, UNTILED))
    assert tiled.peak_bytes < untiled.peak_bytes / 10


def test_tiles_overlap_so_they_cost_more_operations() -> None:
    tiled, untiled = (trace_decode(LARGE_VAE, Decode((33, 90, 160), tiling=tiling)) for tiling in (TILED, UNTILED))
    assert tiled.flops > 1.4 * untiled.flops


def test_streamed_frames_keep_the_peak_from_growing_with_the_length() -> None:
    short, long = (trace_decode(LARGE_VAE, Decode((frames, 90, 160), tiling=TILED)) for frames in (17, 129))
    assert long.peak_bytes < 1.1 * short.peak_bytes


def test_kept_frames_let_the_peak_grow_with_the_length() -> None:
    kept, streamed = (
        trace_decode(LARGE_VAE, Decode((129, 90, 160), tiling=TILED, streams=streams)) for streams in (False, True)
    )
    assert kept.peak_bytes > 1.5 * streamed.peak_bytes


def test_the_peak_of_a_whole_picture_is_the_convolution_after_the_last_enlargement() -> None:
    assert explain_peak(LARGE_VAE, Decode((31, 64, 96)))[0][0] == "workspace"


def test_a_whole_picture_of_720p_has_a_tensor_beyond_32_bit_indices() -> None:
    assert largest_tensor(LARGE_VAE, Decode((33, 90, 160))) > 2**31
