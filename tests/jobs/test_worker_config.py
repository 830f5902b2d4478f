"""Passing the options of a worker to its process."""

from __future__ import annotations

from pathlib import Path

import pytest

from hunyuan_local.config import LoraConfig, RewriteConfig, SafetyConfig, load_model_config, load_profile
from hunyuan_local.jobs.worker_config import WorkerConfig, WorkerOptions


@pytest.mark.parametrize(
    "options",
    [
        WorkerOptions(name="w", model="tiny", profile="cpu", data_dir=Path("data")),
        WorkerOptions(name="w", model=load_model_config("tiny"), profile=load_profile("cpu")),
        WorkerOptions(
            name="w", queue="q", lora=(LoraConfig(path="a=b.safetensors", scale=0.5),), cache="first-block",
            rewriting=RewriteConfig(model_id="some/model", timeout_s=5.0),
            safety=SafetyConfig(mode="block", labels=("a", "b")), context_parallel=2, context_parallel_mode="ring",
        ),
    ],
    ids=["names", "values", "guards"],
)  # fmt: skip
def test_they_arrive_as_they_were(options: WorkerOptions) -> None:
    assert WorkerOptions.model_validate_json(options.model_dump_json()) == options


def test_two_workers_have_two_names() -> None:
    assert WorkerConfig().name != WorkerConfig().name
