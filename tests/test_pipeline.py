"""Denoising and decoding with the built-in checkpoint: equal to stock diffusers, and well-behaved."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import HunyuanVideoPipeline

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from equivalence import library_pipeline, reference

from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.errors import GenerationCancelledError, GpuMemoryError, InvalidOutputError
from hunyuan_local.pipeline import decode, denoise
from hunyuan_local.schema import GenerationRequest, Progress


def never() -> bool:
    return False


def ignore(reported: object) -> None:
    pass


def ours(tiny: LocalBackend, request: GenerationRequest) -> np.ndarray:
    request = tiny.resolve(request)
    denoised = denoise.denoise(tiny.load(), request, (request.width, request.height), ignore, ignore, never)
    return np.concatenate(list(decode.decode(tiny.load(), denoised.latents)))


@pytest.fixture(scope="module")
def library(tiny: LocalBackend) -> HunyuanVideoPipeline:
    return library_pipeline(tiny)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_frames": 1},
        {"num_frames": 29, "num_inference_steps": 3, "width": 80, "height": 144},
        {"negative_prompt": "a blue square", "true_cfg_scale": 2.0},
        {"flow_shift": 7.0, "guidance_scale": 1.0, "seed": 2**64 - 1},
    ],
)
def test_frames_equal_stock_diffusers(
    tiny: LocalBackend, library: HunyuanVideoPipeline, small_request: GenerationRequest, changes: dict
) -> None:
    request = small_request.replace(**changes)
    expected, found = reference(library, tiny, request), ours(tiny, request)
    assert found.shape == expected.shape == (request.num_frames, request.height, request.width, 3)
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.parametrize("num_latents", [1, 4, 5, 6, 7, 8, 9, 13])
def test_streamed_decoding_equals_the_librarys(tiny: LocalBackend, num_latents: int) -> None:
    model = tiny.load()
    latents = torch.randn(1, 16, num_latents, 4, 6, generator=torch.Generator().manual_seed(num_latents))
    with torch.no_grad():
        whole = model.pipe.vae.decode(latents / model.pipe.vae.config.scaling_factor).sample
    expected = ((whole[0].permute(1, 2, 3, 0) / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    found = np.concatenate(list(decode.decode(model, latents)))
    np.testing.assert_array_equal(found, expected)


def test_decoding_hands_on_pieces_of_bounded_length(tiny: LocalBackend) -> None:
    latents = torch.randn(1, 16, 25, 2, 2, generator=torch.Generator().manual_seed(0))
    lengths = [len(piece) for piece in decode.decode(tiny.load(), latents)]
    assert sum(lengths) == 97
    assert max(lengths) <= 16


def test_the_same_request_gives_the_same_frames_and_another_seed_others(
    tiny: LocalBackend, small_request: GenerationRequest
) -> None:
    frames = ours(tiny, small_request)
    np.testing.assert_array_equal(ours(tiny, small_request), frames)
    assert not np.array_equal(ours(tiny, small_request.replace(seed=8)), frames)


def test_cancelling_stops_after_the_step(tiny: LocalBackend, small_request: GenerationRequest) -> None:
    request = tiny.resolve(small_request.replace(num_inference_steps=50))
    steps: list[int] = []

    def watch(progress: Progress) -> None:
        steps.append(progress.step)

    with pytest.raises(GenerationCancelledError, match="after step 2 of 50"):
        denoise.denoise(tiny.load(), request, (144, 80), watch, ignore, lambda: max(steps) >= 2)


def test_nan_latents_stop_at_once(tiny: LocalBackend, small_request: GenerationRequest) -> None:
    weight = tiny.load().pipe.transformer.proj_out.weight
    kept = weight.data.clone()
    try:
        weight.data[0, 0] = float("nan")
        with pytest.raises(InvalidOutputError, match="after step 1 of 2"):
            ours(tiny, small_request)
    finally:
        weight.data.copy_(kept)


def test_nan_frames_are_refused(tiny: LocalBackend) -> None:
    weight = tiny.load().pipe.vae.decoder.conv_out.conv.weight
    kept = weight.data.clone()
    try:
        weight.data[0, 0] = float("inf")
        with pytest.raises(InvalidOutputError, match="frames are NaN"):
            list(decode.decode(tiny.load(), torch.zeros(1, 16, 1, 2, 2)))
    finally:
        weight.data.copy_(kept)


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"prompt": " ".join(["red"] * 80)}, "prompt is too long: the CLIP encoder reads only 75 tokens"),
        ({"negative_prompt": "dull"}, "negative_prompt has no effect without true_cfg_scale above 1"),
        ({"true_cfg_scale": 3.0}, "true_cfg_scale has no effect without negative_prompt"),
    ],
)
def test_options_without_effect_are_reported(
    tiny: LocalBackend, small_request: GenerationRequest, changes: dict, note: str
) -> None:
    request = tiny.resolve(small_request.replace(**changes))
    notes: list[str] = []
    denoise.denoise(tiny.load(), request, (144, 80), ignore, notes.append, never)
    assert [n for n in notes if n.startswith(note)]


def test_running_out_of_memory_is_translated(
    tiny: LocalBackend, small_request: GenerationRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(tiny.load().pipe.transformer, "forward", fail)
    with pytest.raises(GpuMemoryError, match=r"memory ran out in the stage denoise \(CUDA out of memory\)"):
        ours(tiny, small_request)
