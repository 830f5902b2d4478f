"""Triton's kernels have the values of torch's operations, in Triton's interpreter, which needs no GPU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from hunyuan_local.config import load_model_config, load_profile
from hunyuan_local.config.profiles import RuntimeProfile
from hunyuan_local.errors import ConfigError
from hunyuan_local.pipeline.attention import triton_elementwise
from hunyuan_local.pipeline.attention.triton_elementwise import find_fused_problem
from hunyuan_local.pipeline.loading.loader import load_model

PROGRAM = Path(__file__).with_name("triton_values.py")
# Values reach about 10. The interpreter rounds bfloat16 towards zero, four times in a row.
LIMITS = {
    "joined": 2e-6, "step": 2e-6, "step of token_replace": 2e-6,
    "rotated in float32": 2e-6, "added in float32": 2e-6, "modulated in float32": 1e-5,
    "rotated in bfloat16": 0.1, "added in bfloat16": 0.125, "modulated in bfloat16": 0.25,
}  # fmt: skip


@pytest.fixture(scope="module")
def found(starts_process: None) -> dict[str, object]:
    """The program's results; a test without Triton fails, because a kernel that nobody ran must not look right."""
    if importlib.util.find_spec("triton") is None:
        pytest.fail("Triton is not installed; install it for these tests: pip install 'triton>=3.6,<4'")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, str(PROGRAM)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", LIMITS)
def test_the_values_are_those_of_torch(found: dict, case: str) -> None:
    assert found[case] <= LIMITS[case]


def test_the_probe_finds_kernels_that_work(found: dict) -> None:
    assert found["probe"] is None


def test_heads_that_are_not_a_power_of_2_are_refused() -> None:
    assert find_fused_problem("cuda", torch.bfloat16, 96, 96) == "heads of 96 channels; Triton needs a power of 2"


def test_wrong_values_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_elementwise, "Fused", lambda: None)
    monkeypatch.setattr(triton_elementwise, "_distances", lambda *_: [0.0, 0.3])
    assert find_fused_problem("cuda", torch.bfloat16, 128, 384) == "wrong values, off by 0.3"


def test_a_machine_without_triton_refuses_it_with_a_remedy(loads_model: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ImportError("No module named 'triton'")

    monkeypatch.setattr(triton_elementwise, "Fused", fail)
    profile = load_profile("cpu").model_copy(update={"kernels": "triton"})
    with pytest.raises(ConfigError, match=r"kernels='triton': .*No module named 'triton'.*use .* kernels: eager"):
        load_model(load_model_config("tiny"), profile)


def test_compiled_blocks_refuse_it() -> None:
    fields = dict(load_profile("cpu")) | {"kernels": "triton", "compile": True}
    with pytest.raises(ValidationError, match="compile=True cannot be combined with kernels='triton'"):
        RuntimeProfile(**fields)


def test_it_decides_whether_a_run_can_be_resumed() -> None:
    eager = load_profile("cpu")
    fused = eager.model_copy(update={"kernels": "triton"})
    assert "kernels" not in eager.exact_frames  # as in the states saved before there were kernels
    assert fused.exact_frames["kernels"] == "triton"
