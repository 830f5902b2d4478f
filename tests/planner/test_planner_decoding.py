"""The planner's autoencoder compared with the real class: operations exactly, live bytes within 1 %."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo
from live_tensors import LARGE, autoencoder, flops_and_live_peak, live_peak, tiny_config

from hunyuan_local.config import load_model_config, load_profile
from hunyuan_local.config.tiling import TILED, UNTILED, Tiling
from hunyuan_local.pipeline.decode import decode as stream
from hunyuan_local.pipeline.loading import loader
from hunyuan_local.planner.architecture import Autoencoder
from hunyuan_local.planner.decoding import Decode, explain_peak, largest_tensor, trace_decode

LARGE_VAE = Autoencoder.model_validate(LARGE["vae"])
CONFIGS = {
    "large": LARGE["vae"],
    "tiny": tiny_config("vae"),
    "narrow": tiny_config("vae") | {"block_out_channels": (2, 2, 2, 2)},
}
CASES = [
    ("large", (5, 90, 160), UNTILED),
    ("large", (17, 34, 60), UNTILED),
    ("large", (6, 34, 16), TILED),
    ("large", (3, 16, 16), TILED),
    ("large", (3, 36, 20), Tiling(height=208, width=None)),
    ("large", (3, 18, 40), Tiling(height=None, width=224, frames=8)),
    ("tiny", (5, 10, 18), UNTILED),
    ("tiny", (2, 34, 36), TILED),
    # With hundreds of cheap tiles, blending them takes more memory than decoding one.
    ("narrow", (2, 24, 29), Tiling(height=128, width=144)),
]


@cache
def real(kind: str) -> AutoencoderKLHunyuanVideo:
    return autoencoder(CONFIGS[kind], torch.float16 if kind == "large" else torch.float32)


def decode(kind: str, latents: tuple[int, int, int], tiling: Tiling) -> torch.Tensor:
    """The library's own decoding; a side that is not split is one tile as long as the frame."""
    model = real(kind)
    model.enable_tiling(
        tile_sample_min_height=tiling.height or 8 * latents[1],
        tile_sample_min_width=tiling.width or 8 * latents[2],
        tile_sample_min_num_frames=tiling.frames,
        tile_sample_stride_height=tiling.height - 64 if tiling.height else 8 * latents[1],
        tile_sample_stride_width=tiling.width - 64 if tiling.width else 8 * latents[2],
        tile_sample_stride_num_frames=tiling.frames - 4,
    )
    return model.decode(torch.empty(1, 16, *latents, dtype=model.dtype, device="meta"), return_dict=False)[0]


def traced(kind: str, latents: tuple[int, int, int], tiling: Tiling) -> tuple[Autoencoder, Decode]:
    return Autoencoder.model_validate(CONFIGS[kind]), Decode(
        latents, 2 if kind == "large" else 4, tiling, streams=False
    )


@cache
def measured(kind: str, latents: tuple[int, int, int], tiling: Tiling) -> tuple[int, int]:
    """Operations, and the peak of live bytes."""
    return flops_and_live_peak(real(kind), lambda: decode(kind, latents, tiling))


@pytest.mark.parametrize(("kind", "latents", "tiling"), CASES)
def test_operations_are_those_that_torch_counts(kind: str, latents: tuple[int, int, int], tiling: Tiling) -> None:
    assert trace_decode(*traced(kind, latents, tiling)).flops == measured(kind, latents, tiling)[0]


@pytest.mark.parametrize(("kind", "latents", "tiling"), CASES)
def test_the_peak_is_that_of_the_real_decoding(kind: str, latents: tuple[int, int, int], tiling: Tiling) -> None:
    peak = measured(kind, latents, tiling)[1]
    assert trace_decode(*traced(kind, latents, tiling)).peak_bytes == pytest.approx(peak, rel=0.01)


@pytest.mark.parametrize(
    ("latents", "tiling"),
    [
        ((5, 4, 20), Tiling(height=None, width=128)),
        ((8, 4, 8), UNTILED),
        ((9, 4, 8), Tiling(height=None, width=None, frames=8)),
    ],
)
def test_the_peak_of_streamed_frames_is_that_of_this_packages_decoder(
    monkeypatch: pytest.MonkeyPatch, loads_model: None, latents: tuple[int, int, int], tiling: Tiling
) -> None:
    # On a CPU the decoder runs in slices, which take less. The plan counts what it takes on a GPU.
    monkeypatch.setattr(loader, "decode_in_slices", lambda decoder: None)
    model = loader.load_model(load_model_config("tiny"), load_profile("cpu"))
    given = torch.randn(1, 16, *latents, generator=torch.Generator().manual_seed(0))
    peak = live_peak(model.pipe.vae, lambda: [len(piece) for piece in stream(model, given, tiling)], given)
    config = Autoencoder.model_validate(tiny_config("vae"))
    assert trace_decode(config, Decode(latents, 4, tiling)).peak_bytes == pytest.approx(peak, rel=0.01)


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
