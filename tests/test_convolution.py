"""The autoencoder's convolutions on a CPU: oneDNN, with equal results."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.pipeline.convolution import prefer_onednn


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
