"""The command line: outputs, exit codes, and one clear line for each mistake."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path

import image_models
import pytest
import yaml
from command_line import PROGRAM, run_here, run_in_a_process, signalled

from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.cli.commands.replay import psnr_of_files
from hunyuan_local.cli.commands.smoke import smallest
from hunyuan_local.cli.shared.console import ProgressDisplay
from hunyuan_local.config import load_model_config
from hunyuan_local.provenance import read_provenance
from hunyuan_local.schema import GenerationRequest, GenerationResult, Progress

makes_videos = pytest.mark.usefixtures("starts_process")
SMALL = ["--size", "144*80", "--num-frames", "5", "--num-inference-steps", "2", "--seed", "7"]


@pytest.fixture(scope="module")
def generated(
    starts_process: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[subprocess.CompletedProcess[str], Path]:
    """In a separate process."""
    folder = tmp_path_factory.mktemp("cli")
    prompt = "a red circle moving right on a black background"
    options = ["-o", "a.mp4", "--json", "--model", "tiny", "--profile", "cpu"]
    return run_in_a_process("generate", prompt, *SMALL, *options, cwd=folder), folder


def test_generate_succeeds(generated: tuple) -> None:
    assert generated[0].returncode == 0, generated[0].stderr


def test_json_is_the_last_line_of_stdout(generated: tuple) -> None:
    result = GenerationResult(**json.loads(generated[0].stdout.splitlines()[-1]))
    assert result.path == (generated[1] / "a.mp4").resolve()


def test_only_the_json_is_on_stdout(generated: tuple) -> None:
    assert len(generated[0].stdout.splitlines()) == 1


def test_the_summary_names_model_seed_size_frames_and_stages(generated: tuple) -> None:
    summary = generated[0].stderr
    wanted = ("tiny", "7", "144x80", "5 at 12 fps", "load", "encode", "denoise", "decode", "write")
    assert [word for word in wanted if word not in summary] == []


def test_the_notice_of_the_test_model_is_on_stderr(generated: tuple) -> None:
    assert "small test checkpoint" in generated[0].stderr


def test_the_libraries_print_nothing(generated: tuple) -> None:
    assert "Warning" not in generated[0].stderr


def test_another_process_makes_the_same_frames(
    generated: tuple, tiny: LocalBackend, small_request: GenerationRequest, tmp_path: Path
) -> None:
    here = tiny.generate(small_request, GenerationContext(tmp_path / "b.mp4"))
    there = read_provenance(generated[1] / "a.mp4")
    assert here.provenance["frames_sha256"] == there.frames_sha256


@pytest.fixture(scope="module")
def bare(
    starts_process: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Without a model, a profile or a GPU; an existing GPU can be hidden only from a new process."""
    import torch

    folder = tmp_path_factory.mktemp("bare")
    run = run_in_a_process if torch.cuda.is_available() else run_here
    return run("generate", "a red circle", *SMALL, "-o", "a.mp4", cwd=folder, CUDA_VISIBLE_DEVICES=""), folder


def test_without_a_gpu_the_default_model_is_reported(bare: tuple) -> None:
    assert "no CUDA device" in bare[0].stderr and "CUDA GPU" in bare[0].stderr


def test_without_json_the_path_is_printed(bare: tuple) -> None:
    assert bare[0].stdout.splitlines() == [str((bare[1] / "a.mp4").resolve())]


def test_show_prints_the_statement(generated: tuple) -> None:
    result = run_here("show", "a.mp4", cwd=generated[1])
    assert json.loads(result.stdout)["request"]["seed"] == 7


def test_replay_is_identical(generated: tuple) -> None:
    result = run_here("replay", "a.mp4", cwd=generated[1])
    assert (result.returncode, result.stdout.splitlines()[0]) == (
        0,
        "identical: all frames are equal bit for bit",
    )


def test_replay_with_other_weights_says_how_far_apart(generated: tuple, tmp_path: Path) -> None:
    result = run_here("replay", generated[1] / "a.mp4", "--model", _altered_model(tmp_path), "--json", cwd=tmp_path)
    answer = json.loads(result.stdout.splitlines()[-1])
    assert result.returncode == 1
    assert not answer["identical"] and answer["psnr_db"] > 5
    assert [line for line in answer["differences"] if line.startswith("weights:")]


def _altered_model(folder: Path) -> Path:
    """The built-in checkpoint with shifted outputs; the note changes its header."""
    from safetensors.torch import load_file, save_file

    config = load_model_config("tiny")
    copy = Path(shutil.copytree(config.source, folder / "altered"))
    file = next((copy / "transformer").glob("*.safetensors"))
    weights = load_file(file)
    weights["proj_out.bias"] = weights["proj_out.bias"] + 0.05
    save_file(weights, file, metadata={"format": "pt", "note": "altered"})
    path = folder / "altered.yaml"
    path.write_text(yaml.safe_dump(config.model_dump() | {"name": "altered", "model_id": str(copy)}))
    return path


@makes_videos
def test_replay_of_a_file_made_with_a_custom_preset(tmp_path: Path) -> None:
    preset = tmp_path / "mine.yaml"
    config = load_model_config("tiny")
    preset.write_text(yaml.safe_dump(config.model_dump() | {"name": "mine", "model_id": config.source}))
    run_here("generate", "a red circle", *SMALL, "-o", "m.mp4", "--model", preset, "--profile", "cpu", cwd=tmp_path)
    preset.unlink()
    assert run_here("replay", "m.mp4", cwd=tmp_path).stdout.startswith("identical")


def test_psnr_of_a_file_with_itself_is_infinite(generated: tuple) -> None:
    assert psnr_of_files(generated[1] / "a.mp4", generated[1] / "a.mp4") == float("inf")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate", ""], ["prompt=''", "empty"]),
        (["generate", "x", "--width", "1281"], ["width=1281", "1280 and 1296"]),
        (["generate", "x", "--size", "1280"], ["size='1280'", "1280*720"]),
        (["generate", "x", "--size", "1280*720", "--width", "16"], ["size", "--width"]),
        (["generate", "x", "--num-frames", "86"], ["num_frames=86", "85 and 89"]),
        (["generate", "x", "--output", "no/such/folder/a.mp4"], ["no/such/folder", "create it"]),
        (["generate", "x", "--output", "a.avi"], ["a.avi", ".mp4"]),
        (["generate", "x", "--model", "nope"], ["'nope'", "tiny"]),
        (["generate", "x", "--profile", "nope"], ["'nope'", "cpu"]),
        (["generate", "x", "--seed", "-1"], ["seed=-1", "leave it out"]),
        (["generate"], ["PROMPT"]),
        (["generate", "x", "--steps", "3"], ["--steps"]),
        (["nope"], ["nope"]),
    ],
)
def test_bad_input_is_one_clear_message_and_exit_code_2(arguments: list[str], words: list[str], tmp_path: Path) -> None:
    result = run_here(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert [word for word in words if word not in result.stderr] == []
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["show", "replay"])
def test_a_missing_file_is_exit_code_5(command: str, tmp_path: Path) -> None:
    result = run_here(command, "gone.mp4", cwd=tmp_path)
    assert result.returncode == 5
    assert "gone.mp4" in result.stderr and "Traceback" not in result.stderr


def test_an_unreadable_checkpoint_is_exit_code_3(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    result = run_here("generate", "x", "--model", tmp_path, "--output", "a.mp4", cwd=tmp_path)
    assert result.returncode == 3
    assert "Traceback" not in result.stderr


LONG = ["generate", "a red circle", "--model", "tiny", "--num-inference-steps", "100", "-o", "a.mp4"]


@makes_videos
def test_ctrl_c_ends_a_process_that_denoises_and_leaves_no_file(tmp_path: Path) -> None:
    command = [*PROGRAM, *LONG]
    with subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        try:
            while not process.stderr.readline().startswith("denoising"):
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            rest = process.stderr.read()
        finally:
            process.kill()
    assert process.returncode == 130
    assert "cancelled" in rest and "Traceback" not in rest
    assert list(tmp_path.iterdir()) == []


@makes_videos
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_within_a_step_and_leaves_no_file(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    show = ProgressDisplay.__call__

    def show_and_count(display: ProgressDisplay, progress: Progress) -> None:
        show(display, progress)
        if progress.stage == "denoise":
            steps.append(progress.step)

    monkeypatch.setattr(ProgressDisplay, "__call__", show_and_count)
    with signalled(number, when=lambda: 2 in steps):
        result = run_here(*LONG, cwd=tmp_path)
    assert result.returncode == 130 and 100 not in steps
    assert "cancelled" in result.stderr and "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def smoked(
    starts_process: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[subprocess.CompletedProcess[str], Path]:
    folder = tmp_path_factory.mktemp("smoke")
    return run_here("smoke", "--model", "tiny", cwd=folder), folder


def test_smoke_says_what_it_made(smoked: tuple) -> None:
    assert smoked[0].returncode == 0, smoked[0].stderr
    assert smoked[0].stdout.startswith("ok: tiny generated 5 frames of 144x80")


def test_smoke_leaves_nothing(smoked: tuple) -> None:
    assert list(smoked[1].iterdir()) == []


@makes_videos
def test_smoke_draws_an_image_for_a_model_that_needs_one(loads_model: None, tmp_path: Path) -> None:
    config = image_models.make_checkpoint(tmp_path / "model", "token_replace")
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    smoked = run_here("smoke", "--model", "toy.yaml", cwd=tmp_path)
    assert smoked.returncode == 0, smoked.stderr
    assert smoked.stdout.startswith("ok: toy-token_replace generated 5 frames of 144x80")


def test_smoke_draws_the_same_image_each_time() -> None:
    images = [smallest(takes_image=True).image for _ in range(2)]
    assert images[0] is not None and images[0] == images[1]
    assert smallest(takes_image=False).image is None
