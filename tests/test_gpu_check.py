"""``scripts/gpu_check`` on the CPU: random checkpoint, one measured mode, dying processes, and the report."""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from gpu_check import apart, card, checkpoint, command, measure, report, trials, weights
from gpu_check.trials import Trial, VideoSize

from hunyuan_local.config import GIB, load_model_config, load_profile
from hunyuan_local.config.tiling import TILED, Tiling
from hunyuan_local.errors import ConfigError, InvalidRequestError
from hunyuan_local.pipeline.denoise import denoise
from hunyuan_local.pipeline.loading.loader import load_model
from hunyuan_local.pipeline.model import LoadedModel
from hunyuan_local.planner import Machine, Plan, find_gpu
from hunyuan_local.planner.checkpoint import COMPONENTS, read_architecture
from hunyuan_local.planner.modes import DTYPES
from hunyuan_local.weights.files import missing_files

ROOT = Path(__file__).resolve().parents[1]
SHARD_BYTES = 1_000_000
SIZE = VideoSize(144, 80, 5)
H100 = Machine(find_gpu("h100").memory_bytes, 256 * GIB, find_gpu("h100"))

pytestmark = pytest.mark.timeout(900)  # a process imports every library before it begins


def ignore(text: str) -> None:
    """Ignores notes."""


@pytest.fixture(scope="module")
def configs() -> checkpoint.Configs:
    """The built-in model's."""
    folder = load_model_config("tiny").folder
    return {name: json.loads((folder / name / "config.json").read_text()) for name in COMPONENTS}


@pytest.fixture(scope="module")
def folder(configs: checkpoint.Configs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint of small shards."""
    folder = tmp_path_factory.mktemp("random")
    weights.write({"folder": str(folder), "configs": configs, "shard_bytes": SHARD_BYTES}, {}, lambda: None)
    return folder


@pytest.fixture(scope="module")
def loaded(loads_model: None, folder: Path) -> LoadedModel:
    """The random checkpoint, loaded as any other."""
    model = load_model(checkpoint.model_config(folder), load_profile("cpu").model_copy(update={"prompt_cache": False}))
    model.prompts.load()
    return model


# The random checkpoint.


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_weight_is_loaded_as_it_was_written(folder: Path, loaded: LoadedModel, component: str) -> None:
    written: dict[str, torch.Tensor] = {}
    for file in (folder / component).glob("*.safetensors"):
        written |= load_file(file)
    found = dict(getattr(loaded.pipe, component).named_parameters())
    assert found.keys() == written.keys()
    assert all(torch.equal(found[name], tensor.float()) for name, tensor in written.items())


def test_the_transformer_has_the_parameters_that_the_plan_counts(folder: Path, loaded: LoadedModel) -> None:
    planned = read_architecture(checkpoint.model_config(folder)).transformer.parameters
    assert sum(parameter.numel() for parameter in loaded.pipe.transformer.parameters()) == planned


def test_large_components_are_cut_into_shards(folder: Path) -> None:
    files = sorted((folder / "transformer").glob("*.safetensors"))
    index = json.loads((folder / "transformer/diffusion_pytorch_model.safetensors.index.json").read_text())
    assert len(files) > 2
    assert {file.name for file in files} == set(index["weight_map"].values())
    assert all(len(load_file(file)) == 1 or file.stat().st_size < 1.05 * SHARD_BYTES for file in files)
    assert missing_files(folder) == []


def test_weights_are_stored_as_the_real_ones_are(folder: Path) -> None:
    found = {
        name: {tensor.dtype for file in (folder / name).glob("*.safetensors") for tensor in load_file(file).values()}
        for name in COMPONENTS
    }
    assert found == {name: {getattr(torch, precision)} for name, precision in DTYPES["cuda"].items()}


def test_tensors_of_one_shape_differ_and_norms_are_ones(loaded: LoadedModel) -> None:
    block = loaded.pipe.transformer.transformer_blocks[0].attn
    assert not torch.equal(block.to_q.weight, block.to_k.weight)
    assert block.to_q.weight.std().item() == pytest.approx(weights.STANDARD_DEVIATION, rel=0.05)
    assert (block.norm_q.weight == 1).all()


def test_the_full_size_is_that_of_the_13_b_model() -> None:
    full = checkpoint.read_configs(checkpoint.FULL_SIZE)
    models = {name: weights.on_meta(name, full[name]) for name in COMPONENTS}
    parameters = {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()}
    assert list(parameters.values()) == [12_821_012_544, 246_478_803, 7_505_186_816, 123_060_480]
    assert checkpoint.bytes_on_disk(full) == 2 * sum(parameters.values())


def test_latents_of_random_weights_are_finite_and_no_constant(loaded: LoadedModel) -> None:
    request = SIZE.request().replace(seed=1, num_inference_steps=2).with_defaults(dict(loaded.config.defaults))
    latents = denoise(loaded, request, (144, 80), lambda progress: None, ignore, lambda: False).latents
    assert torch.isfinite(latents).all()
    assert latents.std() > 0.1


def test_a_disk_that_is_too_small_is_refused_and_nothing_stays(
    configs: checkpoint.Configs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ConfigError, match=r"1\.0 GB of disk are free, .* needs 1\.0 GB; .*--work-dir"):
        checkpoint.provide(tmp_path, configs, ignore, 60)
    assert list(tmp_path.iterdir()) == []


def test_an_architecture_without_a_component_is_refused(tmp_path: Path) -> None:
    (tmp_path / "half.json").write_text('{"transformer": {}}')
    with pytest.raises(Exception, match=r"half\.json.*KeyError: 'vae'"):
        checkpoint.read_configs(tmp_path / "half.json")


# One mode.


def task(folder: Path, mode: str) -> dict[str, Any]:
    """The task of measuring one mode at a small size for two steps."""
    size = [SIZE.width, SIZE.height, SIZE.num_frames]
    return {"kind": "mode", "device": "cpu", "checkpoint": str(folder), "mode": mode, "size": size, "steps": 2}


@pytest.mark.parametrize("offload", ["none", "model", "sequential"])  # group: see the whole check below
def test_every_offload_is_measured_to_the_last_frame(loads_model: None, folder: Path, offload: str) -> None:
    record: dict[str, Any] = {}
    measure.measure(task(folder, offload), record, lambda: None)
    assert list(record["stages"]) == ["load", "encode", "denoise", "decode"]
    assert record["frames"] == SIZE.num_frames
    assert record["seconds_per_step"] == record["step_seconds"][1]


def test_the_text_is_as_long_as_the_plan_has_it(loaded: LoadedModel) -> None:
    request = SIZE.request().replace(prompt=measure.PROMPT)
    assert loaded.prompts.encode(request, ignore)["prompt_attention_mask"].sum() == 256


def test_prompts_are_encoded_each_time() -> None:
    assert not measure._profile("none").prompt_cache


def test_auto_is_no_mode_to_measure() -> None:
    with pytest.raises(ConfigError, match="mode='auto'"):
        measure._profile("auto")


def test_each_stage_has_a_gpu_peak_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    # Replace torch's peak statistics, and record each call.
    calls: list[str] = []
    for name in ("init", "reset_peak_memory_stats", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, lambda name=name: calls.append(name))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: calls.append("read") or 7)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 8)
    record: dict[str, Any] = {}
    with measure.Meter("cuda", record, lambda: None).stage("denoise"):
        calls.append("work")
    assert calls == ["init", "reset_peak_memory_stats", "work", "synchronize", "read"]
    assert record["stages"]["denoise"]["gpu_allocated_bytes"] == 7
    assert record["stages"]["denoise"]["gpu_reserved_bytes"] == 8


# Dying processes.


def test_missing_weights_become_the_error_of_the_record(folder: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    next((damaged / "transformer").glob("*-00002-of-*.safetensors")).unlink()
    (tmp_path / "task.json").write_text(json.dumps(task(damaged, "none")))
    assert apart.do(tmp_path / "task.json") == 1
    error = json.loads((tmp_path / "record.json").read_text())["error"]
    assert (error["type"], error["stage"]) == ("ModelLoadError", "load")
    assert "00002-of-" in error["message"]


def collect(code: str, folder: Path, timeout_s: float = 60) -> dict[str, Any]:
    """The record of a process that runs this code."""
    return apart.collect([sys.executable, "-c", code], folder, timeout_s, dict(os.environ))


def test_a_killed_process_keeps_what_it_had_measured(starts_process: None, tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text(json.dumps({"stage": "decode", "seconds_per_step": 2.5}))
    record = collect("import os; os.kill(os.getpid(), 9)", tmp_path)
    assert record["seconds_per_step"] == 2.5
    assert (record["error"]["stage"], record["error"]["type"]) == ("decode", "ProcessDied")
    assert "SIGKILL" in record["error"]["message"]


def test_a_process_that_hangs_is_ended(starts_process: None, tmp_path: Path) -> None:
    record = collect("import time; time.sleep(600)", tmp_path, timeout_s=0.5)
    assert "took longer than" in record["error"]["message"]


def test_what_a_dying_process_said_is_shown(
    starts_process: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = collect("import sys; sys.exit('the driver is gone')", tmp_path)
    assert record["error"]["message"] == "the process ended with exit code 1"
    assert "the driver is gone" in capsys.readouterr().err


# Measurements and their expectations.


@pytest.fixture(scope="module")
def plans() -> dict[VideoSize, Plan]:
    """Two sizes of the 13 B model on an H100."""
    sizes = [VideoSize(512, 320, 17), VideoSize(1280, 720, 129)]
    return trials.find_plans(load_model_config("hunyuan-video"), H100, sizes)


def test_all_modes_that_fit_are_measured(plans: dict[VideoSize, Plan]) -> None:
    fitting = {(size, item.name) for size, found in plans.items() for item in found.modes if item.fits}
    chosen = [(trial.size, trial.mode) for trial in trials.choose_trials(plans, quick=False)]
    assert set(chosen) == fitting
    assert len(chosen) == len(fitting)
    assert not all(item.fits for found in plans.values() for item in found.modes)


def test_quick_measures_the_choice_and_one_mode_a_kind_of_offload(plans: dict[VideoSize, Plan]) -> None:
    for size, found in plans.items():
        names = [trial.mode for trial in trials.choose_trials({size: found}, quick=True)]
        assert found.choice.name == names[0]
        assert Counter(name.split("+")[0] for name in names) == Counter(("none", "model", "group", "sequential"))


def test_the_choice_is_that_for_a_video_of_the_usual_steps(plans: dict[VideoSize, Plan]) -> None:
    assert {found.request.num_inference_steps for found in plans.values()} == {50}


def test_a_named_mode_is_measured_whatever_the_plan_says(plans: dict[VideoSize, Plan]) -> None:
    chosen = trials.choose_trials(plans, quick=True, modes=["no-such-mode"])
    assert [(trial.mode, trial.predicted) for trial in chosen] == [("no-such-mode", None)] * 2


def test_the_decode_is_held_against_the_tiles_that_were_used(plans: dict[VideoSize, Plan]) -> None:
    model = load_model_config("hunyuan-video")
    planned = next(trial for trial in trials.choose_trials(plans, quick=False) if trial.mode == "model+tiling")
    assert trials.with_tiling(planned, model, H100, TILED) == planned
    smaller = trials.with_tiling(planned, model, H100, Tiling(height=128, width=128, frames=8))
    for kind in ("gpu_bytes", "seconds"):
        changed = {stage for stage, value in smaller.predicted[kind].items() if value != planned.predicted[kind][stage]}
        assert changed == {"decode"}
    assert smaller.predicted["gpu_bytes"]["decode"] < planned.predicted["gpu_bytes"]["decode"]


def test_tokens_are_those_of_the_plan() -> None:
    # The model card's table: 118,800 latent tokens.
    assert VideoSize(1280, 720, 129).tokens == 118_800 + 256


@pytest.mark.parametrize("text", ["512x320", "512x320x61s", "x"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="WIDTHxHEIGHTxFRAMES"):
        trials.parse_video_size(text)


def test_a_size_that_the_model_cannot_make_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="num_frames=18"):
        trials.parse_video_size("512x320x18")


# The report.

PREDICTED = {
    "gpu_bytes": {"load": 100, "encode": 100, "denoise": 200, "decode": 0},
    "host_bytes": {"load": 50},
    "seconds": {"encode": 1.0, "step": 2.0, "decode": 8.0},
}
MEASURED = {
    "stages": {
        "load": {"seconds": 9.0, "gpu_allocated_bytes": 110, "gpu_reserved_bytes": 120, "host_bytes": 60},
        "encode": {"seconds": 3.0, "gpu_allocated_bytes": 90, "gpu_reserved_bytes": 120, "host_bytes": 60},
        "denoise": {"seconds": 5.0, "gpu_allocated_bytes": 300, "gpu_reserved_bytes": 320, "host_bytes": 60},
        "decode": {"seconds": 4.0, "gpu_allocated_bytes": 300, "gpu_reserved_bytes": 320, "host_bytes": 60},
    },
    "step_seconds": [3.0, 1.0, 1.0],
    "seconds_per_step": 1.0,
    "stage": None,
}


def entry(record: dict[str, Any], machine: Machine = H100) -> dict[str, Any]:
    """A run whose steps need half a second of the H100's operations."""
    return report.entry(Trial(VideoSize(512, 320, 17), "group+tiling", 989 * 10**12 // 2, PREDICTED), record, machine)


def test_ratios_are_measured_by_predicted() -> None:
    ratios = entry(MEASURED)["ratios"]
    assert ratios["gpu_bytes"] == {"load": 1.1, "encode": 0.9, "denoise": 1.5, "decode": None}
    assert ratios["host_bytes"] == {"load": 1.2, "encode": None, "denoise": None, "decode": None}
    assert ratios["seconds"] == {"encode": 3.0, "step": 0.5, "decode": 0.5}


def test_mfu_is_the_share_of_the_gpus_peak() -> None:
    assert entry(MEASURED)["mfu"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    "machine", [Machine(24 * GIB, None), Machine(None, 64 * GIB), Machine(1, None, find_gpu("t4"))]
)
def test_there_is_no_mfu_without_a_known_peak(machine: Machine) -> None:
    assert entry(MEASURED, machine)["mfu"] is None


def test_there_is_no_mfu_without_a_step() -> None:
    assert entry({"error": {"type": "GpuMemoryError", "stage": "load", "message": "full"}})["mfu"] is None


CARD = {
    "date": "2026-01-01T00:00:00+00:00",
    "gpu": {
        "name": "NVIDIA H100 80GB HBM3",
        "memory_bytes": 80 * GIB,
        "compute_capability": [9, 0],
        "driver": "570.1",
        "cuda": "12.8",
    },
    "available_gpu_bytes": 79 * GIB,
    "cpu": {"model": "any", "cores": 8},
    "host_memory_bytes": 64 * GIB,
    "versions": {"torch": "2", "diffusers": "0", "transformers": "5"},
    "libraries": ["torchao"],
}


def test_the_table_of_a_gpu_has_its_figures_and_fits_80_columns() -> None:
    content = report.start(CARD, {}, {})
    failed = {"error": {"type": "GpuMemoryError", "stage": "denoise", "message": "word " * 100}}
    content["runs"] = [entry(MEASURED), entry(failed)]
    content["attention"] = {
        "heads": 24,
        "head_dim": 128,
        "problems": {"flash": "not installed " * 20},
        "rows": [
            {"tokens": 119056, "kernel": "native, masked", "milliseconds": 1234.5, "tflops": 130.0},
            {"tokens": 119056, "kernel": "native_cudnn", "error": "broken " * 20},
        ],
    }
    text = report.as_text(content)
    assert max(map(len, text.splitlines())) <= 80
    rows = [line.split() for line in text.splitlines() if line.startswith("group+tiling")]
    measured, failure, ratios, _ = rows
    assert failure[-2:] == ["-", "!"]
    assert measured[-5:] == ["9.00", "3.00", "1.00", "4.00", "50%"]
    assert ratios[1:] == ["1.10", "0.90", "1.50", "-", "3.00", "0.50", "0.50"]
    assert "! group+tiling: GpuMemoryError in the stage denoise: word" in text


def test_the_file_is_named_by_the_gpu() -> None:
    assert card.file_name(CARD) == "nvidia-h100-80gb-hbm3.json"


def test_the_plan_is_for_the_machine_of_the_card() -> None:
    machine = card.machine_of(json.loads(json.dumps(CARD)))
    assert (machine.gpu.name, machine.gpu.compute_capability) == ("h100", (9, 0))
    assert (machine.gpu_memory_bytes, machine.host_memory_bytes) == (79 * GIB, 64 * GIB)
    assert machine.libraries == {"torchao"}


# The whole check.


@dataclass(frozen=True)
class Check:
    """One run of the script: its exit code, its file and what it printed."""

    code: int
    content: dict[str, Any]
    printed: str
    work_dir: Path


@pytest.fixture(scope="module")
def architecture(configs: checkpoint.Configs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model's config as a file."""
    path = tmp_path_factory.mktemp("architecture") / "tiny.json"
    path.write_text(json.dumps(configs))
    return path


def options(architecture: Path, folder: Path) -> list[str]:
    """The script's options for a trial on a CPU."""
    where = ["--work-dir", str(folder / "work"), "--output", str(folder / "results.json")]
    return ["--device", "cpu", "--architecture", str(architecture), "--size", str(SIZE), "--steps", "2", *where]


def do_here(task: dict[str, Any]) -> dict[str, Any]:
    """What ``apart.run`` returns, without starting a process, which takes longer than most toy-size tasks."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "task.json"
        path.write_text(json.dumps(task))
        apart.do(path)
        path.unlink()
        (record,) = Path(folder).iterdir()
        return json.loads(record.read_text())


@pytest.fixture(scope="module")
def checked(starts_process: None, architecture: Path, tmp_path_factory: pytest.TempPathFactory) -> Check:
    """Two modes, of which the first cannot be measured; the second is, in a separate process."""
    folder, printed, run_apart = tmp_path_factory.mktemp("checked"), io.StringIO(), apart.run

    def run(task: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        return run_apart(task, timeout_s) if task.get("mode") == "group+tiling" else do_here(task)

    with contextlib.redirect_stdout(printed), pytest.MonkeyPatch.context() as patch:
        patch.setattr(apart, "run", run)
        code = command.main([*options(architecture, folder), "--mode", "no-such-mode", "--mode", "group+tiling"])
    content = json.loads((folder / "results.json").read_text())
    return Check(code, content, printed.getvalue(), folder / "work")


def test_a_mode_that_fails_is_an_entry_with_its_error_and_the_others_continue(checked: Check) -> None:
    failed, measured = checked.content["runs"]
    assert failed["error"]["type"] == "ConfigError"
    assert "no-such-mode" in failed["error"]["message"]
    assert measured["error"] is None
    assert checked.code == 1


def test_a_measured_mode_has_every_field(checked: Check) -> None:
    run = checked.content["runs"][1]
    measured = run["measured"]
    assert (run["size"], run["mode"]) == (str(SIZE), "group+tiling")
    assert set(measured["stages"]) == {"load", "encode", "denoise", "decode"}
    assert all(stage["seconds"] > 0 and stage["host_bytes"] > 10**8 for stage in measured["stages"].values())
    assert (len(measured["step_seconds"]), measured["frames"]) == (2, SIZE.num_frames)
    assert measured["attention_backend"] == "native"
    assert measured["tiling"] == TILED.__dict__
    assert all(ratio > 0 for ratio in run["ratios"]["host_bytes"].values())


def test_there_is_no_mfu_on_a_cpu(checked: Check) -> None:
    assert [run["mfu"] for run in checked.content["runs"]] == [None, None]


def test_the_file_has_the_machine_card(checked: Check) -> None:
    found = checked.content["card"]
    assert found["gpu"] is None
    assert found["cpu"]["cores"] == os.cpu_count()
    assert found["versions"]["torch"] == torch.__version__
    assert found["date"][:2] == "20"


def test_kernels_are_compared_with_the_masked_one(checked: Check) -> None:
    found = checked.content["attention"]
    assert (found["heads"], found["head_dim"]) == (4, 32)
    assert [(row["tokens"], row["kernel"]) for row in found["rows"]] == [
        (SIZE.tokens, "native"),
        (SIZE.tokens, "native, masked"),
    ]
    assert all(row["tflops"] > 0 for row in found["rows"])
    assert found["problems"]["flash_3"] == "needs a CUDA device"


def test_the_table_is_printed(checked: Check) -> None:
    assert "group+tiling" in checked.printed
    assert "! no-such-mode: ConfigError" in checked.printed
    assert max(map(len, checked.printed.splitlines())) <= 80


def test_the_random_checkpoint_is_deleted_at_the_end(checked: Check) -> None:
    assert list(checked.work_dir.iterdir()) == []


def test_an_interruption_keeps_what_was_measured_and_the_checkpoint_if_asked(
    architecture: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A stand-in starts the processes here: it copies the checkpoint and is interrupted at the second mode."""

    def run(task: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        if task["kind"] == "card":
            return CARD | {"gpu": None, "available_gpu_bytes": None}
        if task["kind"] == "weights":
            shutil.copytree(folder, task["folder"], dirs_exist_ok=True)
        if task.get("mode") == "model":
            raise KeyboardInterrupt
        return {"seconds_per_step": 1.5} if task["kind"] == "mode" else {}

    monkeypatch.setattr(apart, "run", run)
    code = command.main([*options(architecture, tmp_path), "--mode", "none", "--mode", "model", "--keep"])
    assert code == 130
    assert "the results so far are in" in capsys.readouterr().err
    content = json.loads((tmp_path / "results.json").read_text())
    assert [run["measured"] for run in content["runs"]] == [{"seconds_per_step": 1.5}]
    (kept,) = (tmp_path / "work").iterdir()
    assert missing_files(kept) == []


def test_a_complete_checkpoint_is_used_again_and_another_is_written_anew(
    configs: checkpoint.Configs, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def run(task: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        shutil.copytree(folder, task["folder"], dirs_exist_ok=True)
        written.append(task["folder"])
        return {}

    monkeypatch.setattr(apart, "run", run)
    first = checkpoint.provide(tmp_path, configs, ignore, 60)
    assert checkpoint.provide(tmp_path, configs, ignore, 60) == first
    assert len(written) == 1
    next((first / "transformer").glob("*-00002-of-*.safetensors")).unlink()
    checkpoint.provide(tmp_path, configs, ignore, 60)
    assert len(written) == 2
    assert missing_files(first) == []


def test_results_are_not_overwritten_unasked(
    architecture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results.json").write_text("precious")
    assert command.main(options(architecture, tmp_path)) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "results.json").read_text() == "precious"


def test_a_single_step_is_refused(architecture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([*options(architecture, tmp_path), "--steps", "1"]) == 2
    assert "steps=1: must be at least 2" in capsys.readouterr().err


def test_without_a_gpu_the_script_refuses_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_check"])
    assert runpy.run_path(str(ROOT / "scripts" / "gpu_check"))["main"]() == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: device='cuda': ")
    assert printed.err.count("\n") == 1


def test_the_script_is_executable() -> None:
    assert os.access(ROOT / "scripts" / "gpu_check", os.X_OK)
