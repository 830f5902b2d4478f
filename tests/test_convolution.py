"""The autoencoder's convolutions on a CPU: oneDNN, with equal results."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo
from torch.utils._python_dispatch import TorchDispatchMode

from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.pipeline import convolution as convolution_module
from hunyuan_local.pipeline.convolution import decode_in_slices, prefer_onednn
from hunyuan_local.pipeline.diffusers_private import HunyuanVideoCausalConv3d


class Names(TorchDispatchMode):
    """Collects the names of the operators that run inside."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.seen.add(function.name())
        return function(*args, **(kwargs or {}))


@pytest.fixture
def convolution() -> torch.nn.Conv3d:
    torch.manual_seed(0)
    return torch.nn.Conv3d(8, 4, 3, padding=(0, 1, 1)).requires_grad_(False)


def test_a_small_input_gives_the_same_numbers(convolution: torch.nn.Conv3d) -> None:
    inputs = torch.randn(1, 8, 5, 6, 40)
    expected = convolution(inputs)
    prefer_onednn(convolution)
    torch.testing.assert_close(convolution(inputs), expected, rtol=1e-5, atol=1e-5)


def test_a_small_input_is_done_by_onednn(convolution: torch.nn.Conv3d) -> None:
    prefer_onednn(convolution)
    inputs = torch.randn(1, 8, 5, 6, 40)
    with Names() as names:
        convolution(inputs)
    assert names.seen == {"aten::mkldnn_convolution"}


def test_other_precisions_go_the_usual_way(convolution: torch.nn.Conv3d) -> None:
    inputs = torch.randn(1, 8, 5, 6, 10, dtype=torch.float64)
    convolution = convolution.double()
    expected = convolution(inputs)
    prefer_onednn(convolution)
    assert torch.equal(convolution(inputs), expected)


def test_every_convolution_of_a_loaded_autoencoder_is_covered(tiny: LocalBackend) -> None:
    convolutions = [m for m in tiny.load().pipe.vae.modules() if isinstance(m, torch.nn.Conv3d)]
    assert convolutions and all("_conv_forward" in vars(m) for m in convolutions)


# --- A few frames at a time ---


@pytest.fixture
def decoder() -> torch.nn.Module:
    """A small decoder of diffusers with all its kinds of layers."""
    torch.manual_seed(0)
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 16, 16), layers_per_block=1, norm_num_groups=2
    )
    return vae.decoder.eval().requires_grad_(False)


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_a_decoding_in_slices_is_that_of_diffusers(
    decoder: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, frames: int
) -> None:
    latents = torch.randn(1, 4, frames, 3, 5)
    expected = decoder(latents)
    monkeypatch.setattr(convolution_module, "_SLICE_BYTES", 0)
    decode_in_slices(decoder)
    torch.testing.assert_close(decoder(latents), expected, rtol=1e-5, atol=1e-5)


def test_no_convolution_sees_all_frames(decoder: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    for module in decoder.modules():
        if isinstance(module, torch.nn.Conv3d):
            module.register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[2]))
    monkeypatch.setattr(convolution_module, "_SLICE_BYTES", 0)
    decode_in_slices(decoder)
    decoder(torch.randn(1, 4, 5, 3, 5))  # 17 frames
    assert max(lengths) == 4 + 2  # four, and the two before that the first depends on


def test_a_decoding_keeps_its_input(decoder: torch.nn.Module) -> None:
    decode_in_slices(decoder)
    latents = torch.randn(1, 4, 2, 3, 5)
    before = latents.clone()
    decoder(latents)
    assert torch.equal(latents, before)


def test_a_loaded_autoencoder_decodes_in_slices(tiny: LocalBackend) -> None:
    layers = [m for m in tiny.load().pipe.vae.decoder.modules() if isinstance(m, HunyuanVideoCausalConv3d)]
    assert layers and all("forward" in vars(layer) for layer in layers)
