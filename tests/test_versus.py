"""``benchmarks/vs_diffusers.py`` at small size: its checkpoint, both scripts, the frames, the floor of a step."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import step_profile
from versus import children, difference, floor, mid
from versus.job import Job
from vs_diffusers import make_job

from hunyuan_local.config import load_model_config
from hunyuan_local.video import probe

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def job() -> Job:
    return make_job(load_model_config("tiny").folder, "144x80", 5, 2, "float32")


@pytest.mark.parametrize("script", ["stock", "ours"])
def test_a_script_makes_the_video_and_tells_its_stages(
    starts_process: None, script: str, job: Job, tmp_path: Path
) -> None:
    run = children.run(script, job, tmp_path, script)
    assert probe(tmp_path / f"{script}.mp4").num_frames == 5
    assert set(run.stages) == {"import", "load", "encode", "denoise", "decode", "write"}
    assert sum(stage["wall_s"] for stage in run.stages.values()) < run.wall_s


def test_a_script_that_fails_says_why(starts_process: None, job: Job, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"nowhere ended with 1: .*No module named versus\.nowhere"):
        children.run("nowhere", job, tmp_path, "broken")


def test_our_frames_are_the_plain_scripts_but_for_rounding(loads_model: None, job: Job) -> None:
    found = difference.distance(difference.our_frames(job), difference.stock_frames(job))
    assert found["largest"] <= 1


def test_distance_of_frames() -> None:
    black, dark = np.zeros((1, 2, 2, 3), np.uint8), np.full((1, 2, 2, 3), 51, np.uint8)
    assert difference.distance(dark, black) == {"largest": 51, "psnr_db": pytest.approx(13.979, abs=0.001)}
    assert difference.distance(dark, dark)["psnr_db"] is None


def test_mid_is_made_once(tmp_path: Path) -> None:
    small = {"num_attention_heads": 1, "attention_head_dim": 32}
    folder = mid.provide(tmp_path, small)
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    made = file.stat().st_mtime_ns
    assert mid.provide(tmp_path, small) == folder and file.stat().st_mtime_ns == made


def test_the_floor_counts_products_and_attention() -> None:
    layer, batch = torch.nn.Linear(8, 4).requires_grad_(False), torch.randn(16, 8)
    heads = torch.randn(1, 2, 10, 32)

    def step() -> None:
        torch.relu(layer(batch))
        torch.nn.functional.scaled_dot_product_attention(heads, heads, heads)

    found = floor.replay(floor.record(layer, step))
    assert found.flops == {"products": 2 * 16 * 8 * 4, "attention": 4 * 2 * 10 * 10 * 32}


def test_the_floor_leaves_the_weights_as_they_are() -> None:
    layer = torch.nn.Linear(8, 4).requires_grad_(False)
    before = layer.weight.clone()
    floor.replay(floor.record(layer, lambda: layer(torch.randn(3, 8))))
    assert torch.equal(layer.weight, before)


def test_the_time_of_a_step_is_reported_by_kinds_of_operations() -> None:
    x = torch.randn(512, 512)
    found = step_profile.seconds_by_kind({"one": lambda: torch.nn.functional.gelu(x @ x)}, rounds=2)["one"]
    assert {kind for kind, seconds in found.items() if seconds > 0} >= {"matrix products", "GELU and SiLU"}
    assert found["attention"] == 0
