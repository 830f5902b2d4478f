"""The plan compared with measurements of ``scripts/gpu_check`` on an H100 in benchmarks/results."""

from __future__ import annotations

import json
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest

from hunyuan_local.config import load_model_config
from hunyuan_local.planner import Machine, ModePlan, find_gpu, plan
from hunyuan_local.planner.memory import Setup
from hunyuan_local.schema import GenerationRequest

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
GPU = find_gpu("h100")
RUNS = [
    (size, run["mode"], run["measured"])
    for size in ("512x320x61", "1280x720x129")
    for run in json.loads((RESULTS / f"nvidia-h100-80gb-hbm3-{size}.json").read_text())["runs"]
]
# From the second prompt on, group offload holds two of the encoder's blocks; one prompt was measured.
PEAKS = [
    (size, mode, stage, measured)
    for size, mode, measured in RUNS
    for stage in ("load", "encode", "denoise")
    if measured["stages"][stage]["gpu_allocated_bytes"] > 2**28 and (mode, stage) != ("group+tiling", "encode")
]


def planned(size: str, mode: str) -> ModePlan:
    width, height, frames = map(int, size.split("x"))
    request = GenerationRequest(prompt="any", width=width, height=height, num_frames=frames)
    found = plan(request, load_model_config("hunyuan-video"), Machine(GPU.memory_bytes, None, GPU))
    return {item.name: item for item in found.modes}[mode]


@pytest.mark.parametrize(("size", "mode", "stage", "measured"), PEAKS, ids=lambda value: str(value)[:20])
def test_peaks_are_those_measured(
    size: str, mode: str, stage: str, measured: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The runs rotated queries and keys as the library does, which the plan assumes with a mask.
    monkeypatch.setattr(import_module("hunyuan_local.planner.plan"), "Setup", partial(Setup, mask="row"))
    found = measured["stages"][stage]["gpu_allocated_bytes"]
    assert planned(size, mode).peaks[stage].gpu_bytes == pytest.approx(found, rel=0.04)


@pytest.mark.parametrize(("size", "mode", "measured"), RUNS, ids=lambda value: str(value)[:20])
def test_steps_take_as_long_as_measured_within_an_eighth(size: str, mode: str, measured: dict) -> None:
    assert planned(size, mode).seconds.step == pytest.approx(measured["seconds_per_step"], rel=0.125)


def test_the_copies_are_as_fast_as_measured() -> None:
    rows = json.loads((RESULTS / "nvidia-h100-80gb-hbm3-copies.json").read_text())["copies"]["rows"]
    rates = {row["way"]: row["median"] for row in rows}
    visit = planned("512x320x61", "none+tiling").seconds.visit
    text_gb = 15.26
    expected = text_gb / rates["to the device, from plain memory"]
    expected += text_gb / rates["from the device, to new plain memory"]
    assert visit == pytest.approx(expected, rel=0.1)
