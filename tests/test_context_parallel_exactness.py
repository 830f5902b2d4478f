"""Two processes compared with one: the transformer's output and whole denoising runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import image_models
import pytest

SCRIPT = Path(__file__).with_name("context_parallel_ranks.py")
SIZES = ("even", "odd", "one-token-text")


@pytest.fixture(scope="module")
def measured(starts_process: None) -> dict[str, dict]:
    """What one group of processes measures."""
    env = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    done = subprocess.run([sys.executable, SCRIPT], env=os.environ | env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def differences(measured: dict[str, dict]) -> dict[str, float]:
    """The largest difference by case, as a share of the largest value."""
    return measured["differences"]


# Of two blocks. Ulysses exchanges queries, keys and values, and the output; ring gathers keys and values together.
# Both gather the transformer's output.
@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("ulysses", {"alltoall_base_": 4, "allgather_": 1}),
        ("ring", {"all_gather_into_tensor": 2, "allgather_": 1}),
    ],
)
def test_no_process_asks_for_lengths(measured: dict[str, dict], mode: str, expected: dict[str, int]) -> None:
    assert measured["collectives"][mode] == expected


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", ["ulysses-4-heads", "ulysses-3-heads", "ring-4-heads"])
def test_the_transformer_gives_what_it_gives_alone(differences: dict[str, float], case: str, size: str) -> None:
    assert differences[f"{case}-{size}"] < 1e-6


@pytest.mark.parametrize("mode", ["ulysses", "ring"])
def test_latents_with_a_negative_prompt_are_those_of_one_process(differences: dict[str, float], mode: str) -> None:
    assert differences[f"{mode}-plain"] < 1e-5


@pytest.mark.parametrize("mode", ["ulysses", "ring"])
def test_frames_are_those_of_one_process(differences: dict[str, float], mode: str) -> None:
    assert differences[f"{mode}-plain-frames"] < 1e-5  # for a range of 1


@pytest.mark.parametrize("size", [*SIZES, "one-frame", "frames"])
@pytest.mark.parametrize("kind", image_models.CHANNELS)
@pytest.mark.parametrize("mode", ["ulysses", "ring"])
def test_videos_from_an_image_are_those_of_one_process(
    differences: dict[str, float], mode: str, kind: str, size: str
) -> None:
    assert differences[f"{mode}-{kind}-{size}"] < (1e-5 if size == "frames" else 1e-6)


@pytest.mark.parametrize("profile", ["group-offload", "sequential-offload", "fp8", "taylorseer", "magcache"])
def test_the_profiles_that_may_be_combined_with_it_are_exact(differences: dict[str, float], profile: str) -> None:
    assert differences[f"ulysses-{profile}"] < 1e-5
