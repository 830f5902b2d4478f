"""``hunyuan-local plan`` as a user meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

PROGRAM = [sys.executable, "-c", "from hunyuan_local.cli.main import main; main()"]
MODE_KEYS = {"name", "offload", "quantization", "vae_tiling", "gpu_peak_bytes", "host_peak_bytes", "stage_peaks",
             "fits", "seconds"}  # fmt: skip


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "80", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run([*PROGRAM, "plan", *arguments], env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def table() -> subprocess.CompletedProcess[str]:
    return run("--gpu", "4090", "--host-memory", "64GiB", "--size", "1280*720", "--num-frames", "129")


@pytest.fixture(scope="module")
def document() -> dict:
    done = run("--gpu-memory", "24GiB", "--num-frames", "85", "--json")
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def refused() -> subprocess.CompletedProcess[str]:
    return run("--gpu-memory", "11GiB", "--json")


def test_a_plan_succeeds(table: subprocess.CompletedProcess[str]) -> None:
    assert table.returncode == 0, table.stderr


def test_the_table_fits_in_80_columns(table: subprocess.CompletedProcess[str]) -> None:
    assert max(map(len, table.stdout.splitlines())) <= 80


def test_the_table_marks_one_choice(table: subprocess.CompletedProcess[str]) -> None:
    assert len([line for line in table.stdout.splitlines() if line.startswith("> ")]) == 1


def test_the_table_names_exact_parameters(table: subprocess.CompletedProcess[str]) -> None:
    assert "12,821,012,544" in table.stdout


def test_the_table_names_what_the_time_rests_on(table: subprocess.CompletedProcess[str]) -> None:
    assert "165.2 TFLOP/s dense bfloat16" in table.stdout


def test_json_is_one_line() -> None:
    assert len(run("--model", "tiny", "--json").stdout.splitlines()) == 1


def test_json_has_request_modes_and_choice(document: dict) -> None:
    assert {"request", "modes", "choice"} <= document.keys()


def test_json_says_of_every_mode_what_it_needs(document: dict) -> None:
    assert [mode["name"] for mode in document["modes"] if not mode.keys() >= MODE_KEYS] == []


def test_json_has_the_peaks_of_every_stage(document: dict) -> None:
    assert {"encode", "denoise", "decode"} <= document["modes"][0]["stage_peaks"].keys()


def test_json_names_the_chosen_mode(document: dict) -> None:
    assert document["choice"] in {mode["name"] for mode in document["modes"] if mode["fits"]}


def test_json_repeats_the_request_with_the_models_defaults(document: dict) -> None:
    assert (document["request"]["num_frames"], document["request"]["num_inference_steps"]) == (85, 50)


def test_what_cannot_fit_ends_with_the_code_of_gpu_memory(refused: subprocess.CompletedProcess[str]) -> None:
    assert refused.returncode == 6


def test_what_cannot_fit_names_what_would(refused: subprocess.CompletedProcess[str]) -> None:
    assert "what would fit: 1280x720" in refused.stderr


def test_a_refusal_prints_its_json_too(refused: subprocess.CompletedProcess[str]) -> None:
    found = json.loads(refused.stdout.splitlines()[-1])
    assert found["choice"] is None and found["nearest"]


@pytest.fixture(scope="module")
def batch() -> subprocess.CompletedProcess[str]:
    return run("--gpu", "h100", "--num-gpus", "8", "--videos", "24", "--host-memory", "1TiB")


def test_a_batchs_table_fits_in_80_columns(batch: subprocess.CompletedProcess[str]) -> None:
    assert batch.returncode == 0 and max(map(len, batch.stdout.splitlines())) <= 80


def test_a_batchs_recommendation_comes_first_and_the_other_way_after_it(
    batch: subprocess.CompletedProcess[str],
) -> None:
    text = " ".join(batch.stdout.split())
    assert text.index("replicas, none+tiling: about") < text.index("context parallel, none+tiling: about")
    assert "for 24 videos on 8 replicas" in text


def test_json_has_the_batch_beside_the_plan() -> None:
    found = json.loads(run("--gpu", "h100", "--num-gpus", "2", "--json").stdout)
    assert (found["choice"], found["batch"]["num_gpus"], found["batch"]["videos"]) == ("none+tiling", 2, 1)


def test_videos_alone_are_planned_for_the_cpu() -> None:
    text = run("--model", "tiny", "--host-memory", "4GiB", "--videos", "5").stdout
    assert "for 5 videos" in text and "one at a time" in text


def test_without_a_gpu_tiny_is_planned_for_the_cpu() -> None:
    found = json.loads(run("--model", "tiny", "--host-memory", "4GiB", "--json").stdout)
    assert found["choice"] is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--gpu", "voodoo"), "gpu='voodoo'"),
        (("--gpu-memory", "24"), "gpu_memory='24'"),
        (("--gpu", "4090", "--num-frames", "84"), "num_frames=84"),
        (("--gpu", "4090", "--num-gpus", "0"), "num_gpus=0"),
        (("--gpu", "4090", "--videos", "-3"), "videos=-3"),
        (("--model", "tiny", "--num-gpus", "2"), "num_gpus=2"),
        (("--gpu", "4090", "--model", "nothing"), "model='nothing'"),
    ],
)
def test_mistakes_are_one_clear_line(arguments: tuple[str, ...], message: str) -> None:
    done = run(*arguments)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1) and message in done.stderr
