"""``scripts/gpu_check`` on the CPU: every phase at toy size, random weights, dying processes, and the report."""

from __future__ import annotations

import json
import os
import runpy
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from gpu_check import checkpoint, command, phases, plans, process, report, sparse, task, videos
from gpu_check.phases import FULL, TOY, Phase, Phases
from gpu_check.plans import VideoSize
from gpu_check.process import Process
from gpu_check.task import Record

from hunyuan_local.config import GIB, ModelConfig, configs_dir, load_model_config, load_profile
from hunyuan_local.config.tiling import TILED, Tiling
from hunyuan_local.errors import ConfigError, InvalidRequestError
from hunyuan_local.pipeline.loading.loader import load_model
from hunyuan_local.pipeline.model import LoadedModel
from hunyuan_local.planner import Machine, find_gpu
from hunyuan_local.planner.checkpoint import COMPONENTS
from hunyuan_local.planner.memory import CUDA_CONTEXT
from hunyuan_local.planner.modes import DTYPES

ROOT = Path(__file__).resolve().parents[1]
H100 = Machine(find_gpu("h100").memory_bytes, 256 * GIB, find_gpu("h100"))
CPU = Machine(None, 64 * GIB)
FULL_CONFIGS = plans.read_configs(configs_dir() / "architectures" / "hunyuan-video.json")
TINY_CONFIGS = plans.read_configs(load_model_config("tiny").folder)
ALL_BLOCKS = Phases(TOY, TINY_CONFIGS, Path()).blocks

pytestmark = pytest.mark.timeout(900)  # a process imports every library before it begins


def do_here(phase: Phase) -> dict[str, Any]:
    """The record of a phase that runs in this process, because starting one takes longer than most phases here."""
    with tempfile.TemporaryDirectory() as folder:
        task.do(phase.function, json.loads(json.dumps(phase.task)), Record(Path(folder)))
        return json.loads((Path(folder) / task.RECORD).read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the built-in model's configs: one block of each kind."""
    folder = tmp_path_factory.mktemp("random")
    checkpoint.write(Record(folder), folder=str(folder / "weights"), configs=TINY_CONFIGS)
    return folder / "weights"


@pytest.fixture(scope="module")
def loaded(loads_model: None, folder: Path) -> LoadedModel:
    """The random weights with all blocks of the built-in model."""
    with checkpoint.repeated(ALL_BLOCKS):
        model = load_model(plans.model_config(folder), load_profile("cpu").model_copy(update={"prompt_cache": False}))
        model.prompts.load()
    return model


# The random weights.


def test_weights_are_loaded_as_written_and_blocks_repeat_the_first(folder: Path, loaded: LoadedModel) -> None:
    (file,) = (folder / "transformer").glob("*.safetensors")
    written = load_file(file)
    found = dict(loaded.pipe.transformer.named_parameters())
    assert all(torch.equal(found[name], tensor.float()) for name, tensor in written.items())
    last = "single_transformer_blocks.3.attn.to_q.weight"
    assert torch.equal(found[last], found[last.replace("3", "0", 1)])
    assert (found["transformer_blocks.0.attn.norm_q.weight"] == 1).all()


def test_the_repeated_model_has_the_shapes_of_the_whole_one(loaded: LoadedModel) -> None:
    for name in COMPONENTS:
        whole = checkpoint.on_meta(name, TINY_CONFIGS[name]).state_dict()
        found = getattr(loaded.pipe, name).state_dict()
        assert {key: tensor.shape for key, tensor in found.items()} == {key: t.shape for key, t in whole.items()}


def test_repeated_at_full_size_it_is_the_13_b_model() -> None:
    config = FULL_CONFIGS["transformer"]
    model = checkpoint.on_meta("transformer", config | checkpoint.one_block(config))
    checkpoint.repeat_blocks(model, Phases(FULL, FULL_CONFIGS, Path()).blocks)
    assert sum(parameter.numel() for parameter in model.parameters()) == 12_821_012_544


def test_weights_are_stored_as_the_real_ones_are(folder: Path) -> None:
    found = {
        name: {tensor.dtype for file in (folder / name).glob("*.safetensors") for tensor in load_file(file).values()}
        for name in COMPONENTS
    }
    assert found == {name: {getattr(torch, precision)} for name, precision in DTYPES["cuda"].items()}


def test_the_text_is_as_long_as_the_plan_has_it(loaded: LoadedModel) -> None:
    request = TOY.small.request().replace(prompt=videos.PROMPT)
    assert loaded.encode(request, lambda note: None)["prompt_attention_mask"].sum() == 256


# The phases.


@pytest.fixture(scope="module")
def dry_run(folder: Path) -> dict[str, Phase]:
    """All phases of a dry run, by name."""
    with plans.without_weights(TINY_CONFIGS) as model:
        known = Phases(TOY, TINY_CONFIGS, folder)
        return {phase.name: phase for phase in (*known.first(), *known.others(model, CPU))}


def run_here(phase: Phase) -> dict[str, Any]:
    """The record of a phase that must not fail."""
    record = do_here(phase)
    assert record.get("error") is None, record["error"]
    return record


def test_the_card_has_rates_of_copies_and_products(dry_run: dict[str, Phase]) -> None:
    record = run_here(dry_run["card"])
    assert record["card"]["versions"]["torch"] == torch.__version__
    assert record["copies"]["rows"][0]["way"] == "to the device, from plain memory"
    assert record["rows"][-1]["product"] == f"{TOY.large.tokens} x 640 x 128"
    assert all(row["tflops"] > 0 for row in record["rows"])


def test_kernels_are_compared_with_the_masked_one(dry_run: dict[str, Phase]) -> None:
    record = run_here(dry_run["attention"])
    assert (record["heads"], record["head_dim"]) == (4, 32)
    expected = [(size.tokens, kernel) for size in TOY.sizes for kernel in ("native", "native, masked")]
    assert [(row["tokens"], row["kernel"]) for row in record["rows"]] == expected
    assert record["problems"]["flash_3"] == "needs a CUDA device"


def test_blocks_of_the_package_are_compared_with_diffusers(loads_model: None, dry_run: dict[str, Phase]) -> None:
    record = run_here(dry_run["blocks"])
    stock, ours, *_ = record["rows"]
    assert (stock["variant"], ours["variant"]) == ("diffusers", "this package")
    assert ours["off by"] < 1e-4 and stock["equal"] == 1
    assert all(row[key] > 0 for row in (stock, ours) for key in ("dual ms", "single ms"))
    assert all(seconds > 0 for row in (stock, ours) for seconds in row["pass s"])
    assert list(record["kernels"]["this package"])[:3] == ["attention", "products", "the rest"]


def test_compiled_blocks_are_measured(loads_model: None, dry_run: dict[str, Phase]) -> None:
    rows = run_here(dry_run["compile"])["rows"]
    assert [row["variant"] for row in rows] == ["eager", "compiled"]
    assert rows[1]["off by"] < 1e-4


def test_a_video_is_written_and_a_resumed_one_has_the_same_frames(loads_model: None, dry_run: dict[str, Phase]) -> None:
    record = run_here(dry_run["video"])
    assert {"load", "encode", "denoise", "decode"} <= record["stages"].keys()
    assert (record["frames"], len(record["step_seconds"])) == (TOY.large.num_frames, 2)
    assert record["tiling"].keys() == TILED.__dict__.keys()
    assert [row["found"] for row in record["rows"][:2]] == ["2 of 4", True]
    assert "load" not in record["warm"]["stages"]


@pytest.mark.parametrize("name", ["memory of 16 GB", "memory of 16 GB, fixed segments"])
def test_the_memory_of_a_smaller_card(loads_model: None, dry_run: dict[str, Phase], name: str) -> None:
    phase = dry_run[name]
    assert phase.environment == {"PYTORCH_ALLOC_CONF": f"expandable_segments:{'fixed' not in name}"}
    record = run_here(phase)
    assert record["frames"] == TOY.large.num_frames
    assert record["notes"][0] == "a CPU has no limit of 15.6 GiB"


def test_every_cache_skips_steps(loads_model: None, dry_run: dict[str, Phase]) -> None:
    rows = run_here(dry_run["caches"])["rows"]
    assert [row["cache"] for row in rows] == ["none", "first-block", "taylorseer", "magcache"]
    assert [row.get("error") for row in rows] == [None] * 4
    assert [row["calls"] < rows[0]["calls"] for row in rows[1:]] == [True] * 3


def test_quantizations_run_or_name_why_not(loads_model: None, dry_run: dict[str, Phase]) -> None:
    rows = {row["variant"]: row for row in run_here(dry_run["quantization"])["rows"]}
    assert 0 < rows["fp8"]["off by"] < 0.2
    assert "needs a CUDA device" in rows["nf4"]["error"]
    assert "needs a CUDA device" in rows["fp8-dynamic, compiled"]["error"]


def test_group_offload_is_compared_with_diffusers(loads_model: None, dry_run: dict[str, Phase]) -> None:
    rows = run_here(dry_run["group offload"])["rows"]
    assert len(rows) == 4
    assert all(len(row["pass s"]) == 4 and row.get("error") is None for row in rows)


def test_sparse_attention_keeps_less_with_each_window(dry_run: dict[str, Phase]) -> None:
    rows = run_here(dry_run["sparse attention"])["rows"]
    kept = [row["kept"] for row in rows]
    assert len(rows) == 4 and kept == sorted(kept, reverse=True) and kept[-1] < kept[0]
    assert all(row["milliseconds"] > 0 for row in rows)


def test_the_sparse_mask_is_that_of_the_window() -> None:
    # Tiles of 2 tokens: 2 x 2 x 2 of them, a window of one tile in rows and columns and of all frames; 3 text tokens.
    latents, tile, window, text = (2, 2, 4), (1, 1, 2), (2, 1, 2), 3
    mask, kept = sparse.window_mask(latents, tile, window, text, 8, "cpu")
    tile_of = torch.arange(16) // 2
    place = torch.stack([tile_of // 4, tile_of // 2 % 2, tile_of % 2], dim=-1)
    dense = torch.ones(19, 19, dtype=torch.bool)
    dense[:16, :16] = (place[:, None, 1:] == place[None, :, 1:]).all(-1)
    query, key, value = (torch.randn(1, 2, 19, 16) for _ in range(3))
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=dense)
    found = sparse.flex_attention(query, key, value, block_mask=mask)
    assert (found - expected).abs().max() < 1e-5
    assert kept == 1.0  # every block of 8 has tokens of each row and column


def test_the_windows_at_full_size_keep_the_known_shares() -> None:
    shares = [
        sparse.window_mask(FULL.large.grid, FULL.window_tile, window, 256, FULL.mask_block, "cpu")[1]
        for window in FULL.windows
    ]
    assert shares == pytest.approx([0.54, 0.21, 0.13], abs=0.005)


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_a_named_mode_at_a_size_is_measured(loads_model: None, folder: Path, offload: str) -> None:
    phase = Phases(TOY, TINY_CONFIGS, folder).named(f"{offload}+tiling at {TOY.small}")
    record = run_here(phase)
    assert (record["frames"], record["attention_backend"]) == (TOY.small.num_frames, "native")
    assert record["seconds_per_step"] == pytest.approx(sum(record["step_seconds"][1:]) / 2)
    assert all(stage["host_bytes"] > 10**8 for stage in record["stages"].values())


@pytest.mark.parametrize("mode", ["no-such-mode", "auto"])
def test_a_mode_that_is_none_is_the_error_of_its_phase(folder: Path, mode: str) -> None:
    phase = Phases(TOY, TINY_CONFIGS, folder).named(f"{mode} at {TOY.small}")
    error = do_here(phase)["error"]
    assert error["type"] == "ConfigError" and mode in error["message"]


def test_real_weights_give_a_real_video(loads_model: None, tmp_path: Path) -> None:
    phase = Phases(TOY, TINY_CONFIGS, tmp_path).real_video("tiny", tmp_path / "real.mp4")
    record = run_here(phase)
    assert (tmp_path / "real.mp4").is_file()
    assert len(record["step_seconds"]) == load_model_config("tiny").defaults.num_inference_steps


def test_a_card_is_imitated_by_torchs_limit_and_by_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[float] = []
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: type("P", (), {"total_memory": 100 * GIB}))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", shares.append)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda index: 5 * GIB)
    with videos._memory_of("cuda", 15 * GIB, {}):
        assert torch.cuda.mem_get_info() == (10 * GIB - CUDA_CONTEXT, 15 * GIB)
    assert shares == [(15 * GIB - CUDA_CONTEXT) / (100 * GIB)]


# The phases of a real machine.


@pytest.fixture(scope="module")
def full() -> Iterator[ModelConfig]:
    """The 13 B model's configs."""
    with plans.without_weights(FULL_CONFIGS) as model:
        yield model


def test_phases_are_in_the_order_of_their_worth(full: ModelConfig) -> None:
    found = Phases(FULL, FULL_CONFIGS, Path("/any")).others(full, H100)
    names = [phase.name for phase in found]
    assert names[:4] == ["attention", "blocks", "video", "compile"]
    assert names.index("memory of 12 GB") < names.index("caches") < names.index("memory of 48 GB, fixed segments")
    assert names[-1].endswith("at 1280x720x129") and "none+tiling at 512x320x61" in names
    attention = found[0].task
    assert attention["tokens"] == [10_496, 119_056]  # the model card's table, and 256 tokens of text


def test_a_smaller_card_gets_its_fastest_exact_mode(full: ModelConfig) -> None:
    sizes = FULL.sizes[::-1]
    small, large = (plans.fastest_exact(full, Machine(round(gib * GIB), 128 * GIB), sizes) for gib in (15.6, 44.4))
    assert small == (FULL.large, "group+tiling") and large == (FULL.large, "none+tiling")


def test_streamed_modes_run_with_few_blocks(full: ModelConfig) -> None:
    found = {phase.name: phase for phase in Phases(FULL, FULL_CONFIGS, Path("/any")).others(full, H100)}
    assert found["memory of 16 GB"].task["blocks"]["transformer_blocks"] == 4
    assert found["memory of 48 GB"].task["blocks"]["transformer_blocks"] == 20


def test_a_machine_imitates_only_smaller_cards(full: ModelConfig) -> None:
    found = Phases(FULL, FULL_CONFIGS, Path("/any")).others(full, Machine(round(15.7 * GIB), 64 * GIB))
    assert [phase.name for phase in found if "fixed" not in phase.name and phase.name.startswith("memory")] == [
        "memory of 16 GB",
        "memory of 12 GB",
    ]
    assert next(phase for phase in found if phase.name == "video").task["mode"] == "group+tiling"


def test_more_minutes_give_each_phase_more_time(dry_run: dict[str, Phase]) -> None:
    phase = dry_run["attention"]
    assert [phases.in_minutes(phase, minutes).limit_s / phase.limit_s for minutes in (5, 10, 30)] == [1, 1, 3]


def test_a_phase_that_does_not_exist_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"phase='atention': must be a phase that --list shows, or a mode and a size"):
        Phases(TOY, TINY_CONFIGS, folder).named("atention")


@pytest.mark.parametrize("text", ["512x320", "512x320x61s", "x"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="WIDTHxHEIGHTxFRAMES"):
        VideoSize.parse(text)


def test_a_size_that_the_model_cannot_make_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="num_frames=18"):
        VideoSize.parse("512x320x18")


def test_the_decode_is_held_against_the_tiles_that_were_used(full: ModelConfig) -> None:
    size = VideoSize(512, 320, 17)
    planned = plans.predict(full, H100, size, "model+tiling")
    assert plans.predict(full, H100, size, "model+tiling", TILED.__dict__) == planned
    smaller = plans.predict(full, H100, size, "model+tiling", Tiling(height=128, width=128, frames=8).__dict__)
    for kind in ("gpu_bytes", "seconds"):
        assert {stage for stage, value in smaller[kind].items() if value != planned[kind][stage]} == {"decode"}
    assert smaller["gpu_bytes"]["decode"] < planned["gpu_bytes"]["decode"]


def test_a_mode_that_is_unknown_has_no_prediction(full: ModelConfig) -> None:
    assert plans.predict(full, H100, VideoSize(512, 320, 17), "no-such-mode") is None


# Processes that die.


@pytest.fixture
def start(starts_process: None, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts processes that run the given code instead of a phase."""
    started: list[Process] = []

    def with_code(code: str, **environment: str) -> Process:
        (tmp_path / "phase_code.py").write_text(code)
        phase = Phase("any", "any:any", 60, {"device": "cpu"}, {"PYTHONPATH": str(tmp_path)} | environment)
        started.append(Process(phase, "phase_code"))
        return started[-1]

    yield with_code
    for child in started:
        child.close()


def test_a_killed_process_keeps_what_it_had_measured(start: Callable[..., Process]) -> None:
    process = start("import os; input(); os.kill(os.getpid(), 9)")
    (process.folder / "record.json").write_text(json.dumps({"stage": "decode", "seconds_per_step": 2.5}))
    record = process.run(60)
    assert record["seconds_per_step"] == 2.5
    assert (record["error"]["stage"], record["error"]["type"]) == ("decode", "ProcessDied")
    assert "SIGKILL" in record["error"]["message"]


def test_a_process_that_hangs_is_ended_with_all_that_it_started(start: Callable[..., Process]) -> None:
    code = "import subprocess, sys; p = subprocess.Popen(['sleep', '600']); print(p.pid, file=sys.stderr); p.wait()"
    process = start(code)
    record = process.run(3)
    started = int((process.folder / "log.txt").read_text())
    assert record["error"]["message"] == "stopped after 3 s; more time: --minutes"
    time.sleep(0.2)
    state = Path(f"/proc/{started}/stat")
    assert not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z"


def test_the_last_line_of_a_dying_process_is_its_error(start: Callable[..., Process]) -> None:
    process = start("import sys; input(); print('first', file=sys.stderr); sys.exit('the driver is gone')")
    record = process.run(60)
    assert record["error"]["message"] == "the process ended with exit code 1: the driver is gone"


def test_a_phase_has_its_own_environment(start: Callable[..., Process]) -> None:
    code = "import os, sys; input(); sys.exit(os.environ['PYTORCH_ALLOC_CONF'] + os.environ['HF_HUB_OFFLINE'])"
    process = start(code, PYTORCH_ALLOC_CONF="expandable_segments:True")
    record = process.run(60)
    assert record["error"]["message"].endswith("expandable_segments:True1")


def test_missing_weights_become_the_error_of_the_record(loads_model: None, folder: Path, tmp_path: Path) -> None:
    phase = Phases(TOY, TINY_CONFIGS, tmp_path / "absent").named(f"none at {TOY.small}")
    error = do_here(phase)["error"]
    assert "absent" in error["message"]


# The report.

PREDICTED = {
    "gpu_bytes": {"load": 100, "encode": 100, "denoise": 200, "decode": 0},
    "host_bytes": {"load": 50},
    "seconds": {"encode": 1.0, "step": 2.0, "decode": 8.0},
    "flops_per_step": 989 * 10**12 // 2,  # half a second of the H100's operations
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
CARD = {
    "date": "2026-01-01T00:00:00+00:00",
    "gpu": {"name": "NVIDIA H100 80GB HBM3", "memory_bytes": 80 * GIB, "compute_capability": [9, 0]},
    "available_gpu_bytes": 79 * GIB,
    "cpu": {"model": "any", "cores": 8},
    "host_memory_bytes": 64 * GIB,
    "versions": {"torch": "2", "diffusers": "0"},
    "libraries": ["torchao"],
}


@pytest.fixture
def content(full: ModelConfig, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A report of a measured mode, a failed phase and a phase that did not run."""
    monkeypatch.setattr(report, "predict", lambda *_: dict(PREDICTED))
    found = report.start(CARD, {})
    mode = Phases(FULL, FULL_CONFIGS, folder).named("group+tiling at 512x320x61")
    report.add(found, mode, MEASURED, 21.0, full, H100)
    broken = Phase("attention", "attention:compare", 60, {"device": "cuda"})
    rows = [
        {"tokens": 119056, "kernel": "native", "milliseconds": 1234.5},
        {"kernel": "flash", "error": "broken " * 40},
    ]
    failure = {"type": "GpuMemoryError", "stage": "denoise", "message": "word " * 100}
    report.add(found, broken, {"rows": rows, "error": failure}, 3.0, full, H100)
    report.skip(found, [Phase("caches", "videos:skip_steps", 60, {})], "no time left of 10 minutes")
    return found


def test_ratios_are_measured_by_predicted(content: dict[str, Any]) -> None:
    (run,) = content["runs"]
    assert run["ratios"]["gpu_bytes"] == {"load": 1.1, "encode": 0.9, "denoise": 1.5, "decode": None}
    assert run["ratios"]["host_bytes"] == {"load": 1.2, "encode": None, "denoise": None, "decode": None}
    assert run["ratios"]["seconds"] == {"encode": 3.0, "step": 0.5, "decode": 0.5}


def test_the_format_is_read_as_the_one_before(content: dict[str, Any]) -> None:
    """As ``tests/planner/test_planner_measured.py`` reads the results of an H100."""
    before = json.loads((ROOT / "benchmarks/results/nvidia-h100-80gb-hbm3-512x320x61.json").read_text())
    (run,) = content["runs"]
    assert run.keys() == before["runs"][0].keys()
    assert (run["size"], run["mode"]) == ("512x320x61", "group+tiling")
    assert content["attention"]["rows"][0]["tokens"] == 119056


def test_mfu_is_the_share_of_the_gpus_peak() -> None:
    assert report.model_flops_utilisation(989 * 10**12 // 2, 1.0, H100) == pytest.approx(0.5)


@pytest.mark.parametrize("machine", [Machine(24 * GIB, None), CPU, Machine(1, None, find_gpu("t4"))])
def test_there_is_no_mfu_without_a_known_peak(machine: Machine) -> None:
    assert report.model_flops_utilisation(10**12, 1.0, machine) is None


def test_the_table_has_what_was_measured_what_failed_and_what_did_not_run(content: dict[str, Any]) -> None:
    text = report.as_text(content)
    assert max(map(len, text.splitlines())) <= 120
    assert "1 s a step, group+tiling" in text
    assert "! GpuMemoryError in the stage denoise: word" in text
    assert "119056  native  1234" in text and "  flash: broken" in text
    assert "not run, no time left of 10 minutes:\n  caches" in text
    assert [phase["name"] for phase in report.failures(content)] == ["attention"]


def test_the_file_is_named_by_the_gpu_and_the_plan_is_for_the_machine_of_the_card() -> None:
    assert plans.file_name(CARD) == "nvidia-h100-80gb-hbm3.json"
    machine = plans.machine_of(json.loads(json.dumps(CARD)))
    assert (machine.gpu.name, machine.gpu_memory_bytes, machine.libraries) == ("h100", 79 * GIB, {"torchao"})


# The whole check.


class Stand:
    """Stands in for ``Process``: the card is described in this process; other phases return what they are given."""

    records: dict[str, Any]

    def __init__(self, phase: Phase):
        self.phase = phase

    def run(self, timeout_s: float) -> dict[str, Any]:
        """The record; raises it if it is an error."""
        found = self.records.get(self.phase.name, {"card": CARD | {"gpu": None, "available_gpu_bytes": None}})
        if isinstance(found, BaseException):
            raise found
        return dict(found)

    def close(self) -> None:
        """Nothing."""


def options(tmp_path: Path, *more: str) -> list[str]:
    """Those of a dry run."""
    return ["--dry-run", "--work-dir", str(tmp_path / "work"), "--output", str(tmp_path / "results.json"), *more]


def check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, records: dict[str, Any], *more: str) -> tuple[int, Any]:
    """Exit code and file of a dry run whose phases return these records."""
    monkeypatch.setattr(process, "Process", Stand)
    monkeypatch.setattr(Stand, "records", {"weights": {}} | records, raising=False)
    code = command.main(options(tmp_path, *more))
    return code, json.loads((tmp_path / "results.json").read_text())


def test_the_command_runs_phases_in_processes(
    starts_process: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(options(tmp_path, "--minutes", "60", "--phase", "attention")) == 0
    content = json.loads((tmp_path / "results.json").read_text())
    outcomes = [(phase["name"], phase["outcome"]) for phase in content["phases"]]
    assert outcomes == [("card", "ran"), ("weights", "ran"), ("attention", "ran")]
    assert content["card"]["gpu"] is None and content["copies"]["rows"] and content["attention"]["rows"]
    assert capsys.readouterr().out == (tmp_path / "results.txt").read_text()
    assert list((tmp_path / "work").iterdir()) == []


def test_a_phase_that_fails_is_recorded_and_the_others_continue(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    error = {"error": {"type": "ProcessDied", "stage": None, "message": "gone"}}
    names = ("--phase", "attention", "--phase", "blocks")
    code, content = check(monkeypatch, tmp_path, {"attention": error, "blocks": {"rows": []}}, *names)
    assert code == 1
    assert [phase["outcome"] for phase in content["phases"]] == ["ran", "ran", "failed", "ran"]


def test_phases_that_no_time_is_left_for_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code, content = check(monkeypatch, tmp_path, {}, "--minutes", "0.1")
    assert code == 0
    skipped = [phase["name"] for phase in content["phases"] if phase["outcome"] == "not run"]
    assert skipped[:3] == ["weights", "attention", "blocks"]
    assert content["phases"][-1]["why"] == "no time left of 0.1 minutes (--minutes)"


def test_real_weights_are_measured_right_after_the_first_phase(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    records = {"attention": {"rows": []}, "real video": {"frames": 5}}
    _, content = check(monkeypatch, tmp_path, records, "--model", "tiny", "--phase", "attention")
    assert [phase["name"] for phase in content["phases"]] == ["card", "weights", "attention", "real video"]
    assert content["runs"] == []  # which are of random weights


def test_an_interruption_keeps_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = {"attention": {"rows": [{"kernel": "native"}]}, "blocks": KeyboardInterrupt()}
    code, content = check(monkeypatch, tmp_path, records, "--phase", "attention", "--phase", "blocks")
    assert code == 130
    assert "the results so far are in" in capsys.readouterr().err
    assert content["attention"]["rows"] == [{"kernel": "native"}]


def test_results_are_not_overwritten_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "results.json").write_text("precious")
    assert command.main(options(tmp_path)) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "results.json").read_text() == "precious"


def test_no_minutes_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(options(tmp_path, "--minutes", "0")) == 2
    assert "minutes=0: must be above 0" in capsys.readouterr().err


def test_a_disk_that_is_too_small_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10**9}))
    with pytest.raises(ConfigError, match=r"1\.0 GB of disk are free, .* needs 5\.0 GB; .*--work-dir"):
        command._prepare_folder(tmp_path, command.DISK_BYTES)


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


def test_a_process_without_a_task_ends(tmp_path: Path) -> None:
    theirs, ours = socket.socketpair()
    theirs.close()
    with ours:
        assert task.wait_and_do(tmp_path / "absent", ours) == 0


def test_the_script_is_executable() -> None:
    assert os.access(ROOT / "scripts" / "gpu_check", os.X_OK)
