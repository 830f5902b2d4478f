"""The command ``hunyuan-local plan``."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from command_line import run_here, run_in_a_process

MODE_KEYS = {"name", "offload", "quantization", "vae_tiling", "gpu_peak_bytes", "host_peak_bytes", "stage_peaks",
             "fits", "seconds"}  # fmt: skip


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Plan for the machine that the arguments describe."""
    return run_here("plan", *arguments, cwd=Path())


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this machine appear without a GPU."""
    monkeypatch.setattr("hunyuan_local.planner.machine.has_cuda_driver", lambda: False)


@pytest.fixture(scope="module")
def table() -> subprocess.CompletedProcess[str]:
    return run("--gpu", "4090", "--host-memory", "64GiB", "--size", "1280*720", "--num-frames", "129")


@pytest.fixture(scope="module")
def everything() -> subprocess.CompletedProcess[str]:
    return run("--gpu", "4090", "--host-memory", "64GiB", "--size", "1280*720", "--num-frames", "129", "--all")


@pytest.fixture(scope="module")
def printed() -> list[str]:
    return run("--gpu-memory", "24GiB", "--num-frames", "85", "--json").stdout.splitlines()


@pytest.fixture(scope="module")
def document(printed: list[str]) -> dict:
    return json.loads(printed[-1])


@pytest.fixture(scope="module")
def refused() -> subprocess.CompletedProcess[str]:
    return run("--gpu-memory", "4608MiB", "--json")


def test_a_plan_succeeds(table: subprocess.CompletedProcess[str]) -> None:
    assert table.returncode == 0, table.stderr


def test_the_table_fits_in_80_columns(table: subprocess.CompletedProcess[str]) -> None:
    assert max(map(len, table.stdout.splitlines())) <= 80


def test_the_table_marks_one_choice(table: subprocess.CompletedProcess[str]) -> None:
    assert len([line for line in table.stdout.splitlines() if line.startswith("> ")]) == 1


def test_the_verdict_comes_before_the_table(table: subprocess.CompletedProcess[str]) -> None:
    verdict = next(
        line for line in table.stdout.splitlines() if line.startswith("Fits as group+tiling: about 67-93 min")
    )
    assert table.stdout.index(verdict) < table.stdout.index("peak GiB")


def test_only_modes_that_fit_are_shown(table: subprocess.CompletedProcess[str]) -> None:
    assert "none+nf4+tiling" in table.stdout and "none+fp8+tiling" not in table.stdout


def test_all_fits_in_80_columns_too(everything: subprocess.CompletedProcess[str]) -> None:
    assert max(map(len, everything.stdout.splitlines())) <= 80


def test_all_has_a_column_that_says_why_a_mode_does_not_fit(everything: subprocess.CompletedProcess[str]) -> None:
    (row,) = [line.split() for line in everything.stdout.splitlines() if line.split()[:1] == ["none+tiling"]]
    assert "why not" in everything.stdout and row[-3:] == ["needs", "39.0", "GPU"]


def test_all_names_exact_parameters(everything: subprocess.CompletedProcess[str]) -> None:
    assert "12,821,012,544" in everything.stdout


def test_all_names_what_the_time_rests_on(everything: subprocess.CompletedProcess[str]) -> None:
    assert "165.2 TFLOP/s dense bfloat16" in everything.stdout


def test_json_is_one_line(printed: list[str]) -> None:
    assert len(printed) == 1


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


def test_the_time_of_a_batch_on_a_card_that_was_not_measured_is_a_range() -> None:
    text = " ".join(run("--gpu", "4090", "--num-gpus", "2", "--videos", "4", "--host-memory", "256GiB").stdout.split())
    assert re.search(r"replicas, group\+tiling: about \d:\d\d-\d:\d\d h for 4 videos on 2 replicas", text)
    assert "Times in the table are the middle of a guess for this GPU." in text


def test_a_plan_says_what_it_decided_and_warns() -> None:
    text = " ".join(run("--gpu", "h100").stdout.split())
    assert "note: the text encoders stay on the GPU between prompts" in text and "note: compile: not chosen" in text


def test_a_mode_that_may_need_more_than_the_card_has_says_so() -> None:
    text = " ".join(run("--gpu-memory", "9GiB", "--host-memory", "64GiB").stdout.split())
    assert "8.0 GiB (7.4 to 9.9) of GPU memory" in text and "It may run out of GPU memory" in text


def test_json_has_the_ranges(document: dict) -> None:
    mode = next(mode for mode in document["modes"] if mode["name"] == document["choice"])
    assert mode["seconds_range"][0] < mode["seconds"] < mode["seconds_range"][1]
    assert mode["needed_gpu_range"][0] < mode["needed_gpu_bytes"] < mode["needed_gpu_range"][1]


def test_json_has_the_batch_next_to_the_plan() -> None:
    found = json.loads(run("--gpu", "h100", "--num-gpus", "2", "--json").stdout)
    assert (found["choice"], found["batch"]["num_gpus"], found["batch"]["videos"]) == ("none+tiling", 2, 1)


def test_videos_alone_are_planned_for_the_cpu(no_gpu: None) -> None:
    text = run("--model", "tiny", "--host-memory", "4GiB", "--videos", "5").stdout
    assert "for 5 videos" in text and "one at a time" in text


@pytest.mark.usefixtures("starts_process")
def test_where_the_gpu_is_hidden_tiny_is_planned_for_the_cpu() -> None:
    done = run_in_a_process("plan", "--host-memory", "4GiB", "--json", cwd=Path(), CUDA_VISIBLE_DEVICES="")
    found = json.loads(done.stdout)
    assert (found["model"], found["choice"]) == ("tiny", "none")


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
def test_mistakes_are_one_clear_line(no_gpu: None, arguments: tuple[str, ...], message: str) -> None:
    done = run(*arguments)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1) and message in done.stderr
