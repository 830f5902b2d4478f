"""Provenance in a file: weights identity, damaged statements, differences."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.begin import begin
from hunyuan_local.config import load_model_config
from hunyuan_local.errors import ConfigError, VideoError
from hunyuan_local.json_text import json_text
from hunyuan_local.provenance import (
    ModelIdentity,
    Provenance,
    differences,
    library_versions,
    now,
    read_provenance,
    statement,
    weights_identity,
)
from hunyuan_local.schema import GenerationRequest, Timings
from hunyuan_local.video import VideoWriter

runs_ffmpeg = pytest.mark.usefixtures("starts_process")


def example(**changes: object) -> Provenance:
    fields = {
        "backend": "local",
        "request": GenerationRequest(prompt='quotes " and\nlines; = # \\ é 雪', seed=2**64 - 1),
        "model": ModelIdentity(config=load_model_config("tiny"), weights="headers-sha256:0"),
        "profile": "cpu",
        "device": "cpu, 2 threads",
        "render_size": (144, 80),
        "timings": Timings(total_s=1.5),
        "frames_sha256": "0" * 64,
    }
    return statement(**(fields | changes))


def video(path: Path, metadata: str | None) -> Path:
    with VideoWriter(path, frame_size=(16, 16), fps=8) as writer:
        writer.write(np.random.default_rng(0).integers(0, 255, (3, 16, 16, 3), dtype=np.uint8))
        writer.finish(metadata)
    return path


@runs_ffmpeg
def test_a_statement_survives_the_file(tmp_path: Path) -> None:
    written = example()
    assert read_provenance(video(tmp_path / "a.mp4", written.model_dump_json())) == written


@runs_ffmpeg
@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (None, "contains no provenance"),
        ("made with love", "damaged"),
        ("[1]", "another program wrote the file"),
        ('{"format": "other/1"}', "another program wrote the file"),
        ('{"format": "hunyuan-local/1"}', "damaged"),
    ],
)
def test_a_file_without_a_good_statement_is_refused(tmp_path: Path, metadata: str | None, words: str) -> None:
    with pytest.raises(VideoError, match=words):
        read_provenance(video(tmp_path / "a.mp4", metadata))


@runs_ffmpeg
def test_a_statement_with_a_refused_request_is_damaged(tmp_path: Path) -> None:
    fields = json.loads(example().model_dump_json())
    fields["request"]["width"] = 17
    with pytest.raises(VideoError, match=r"damaged.*width"):
        read_provenance(video(tmp_path / "a.mp4", json.dumps(fields)))


def test_versions_name_what_decides_the_frames() -> None:
    assert {"python", "torch", "diffusers", "transformers", "hunyuan-local"} <= library_versions().keys()


def test_the_same_stack_has_no_differences() -> None:
    assert differences(example(), example()) == []


def test_each_difference_is_named() -> None:
    old = example()
    new = example(device="gpu").model_copy(update={"versions": old.versions | {"torch": "9"}})
    assert differences(old, new) == [
        "device: cpu, 2 threads then, gpu now",
        f"torch: {old.versions['torch']} then, 9 now",
    ]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return Path(shutil.copytree(load_model_config("tiny").source, tmp_path / "checkpoint"))


def test_identity_is_the_same_twice(checkpoint: Path) -> None:
    assert weights_identity(checkpoint) == weights_identity(checkpoint)


@pytest.mark.parametrize("change", ["rename", "shorten", "config"])
def test_identity_changes_with_the_files(checkpoint: Path, change: str) -> None:
    before = weights_identity(checkpoint)
    weights = next((checkpoint / "vae").glob("*.safetensors"))
    if change == "rename":
        weights.rename(weights.with_name("other.safetensors"))
    elif change == "shorten":
        weights.write_bytes(weights.read_bytes()[:-2])
    else:
        config = checkpoint / "scheduler" / "scheduler_config.json"
        config.write_text(config.read_text().replace('"shift": 3.0', '"shift": 7.0'))  # of the same size
    assert weights_identity(checkpoint) != before


@pytest.mark.parametrize("text", ["1.5", "-1", "tomorrow", "1e9", " 1", "253402300800", "9" * 30, "\u0661"])
def test_a_source_date_that_is_no_time_is_refused_before_the_work(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    request, context = GenerationRequest(prompt="x", seed=1), GenerationContext(tmp_path / "a.mp4")
    with pytest.raises(ConfigError, match=r"SOURCE_DATE_EPOCH=.*whole number of seconds since 1970"):
        begin(request, context, name="tiny", resolve=lambda asked: asked)
    assert now()  # where it is too late to refuse it, the clock's time is used


@pytest.mark.parametrize(
    ("text", "moment"),
    [("0", "1970-01-01T00:00:00+00:00"), ("253402300799", "9999-12-31T23:59:59+00:00")],
)
def test_a_source_date_is_resumed_to_the_last_second(text: str, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    assert now() == moment


@runs_ffmpeg
def test_a_statement_with_a_raw_byte_in_a_name_survives_the_file(tmp_path: Path) -> None:
    raw = os.fsdecode(b"/loras/r\xff.safetensors")
    model = ModelIdentity(config=load_model_config("tiny"), files={raw: "0"})
    path = video(tmp_path / "a.mp4", json_text(example(model=model)))
    assert read_provenance(path).model.files == {raw: "0"}
