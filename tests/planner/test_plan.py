"""Plans: every mode, the choice, what a machine cannot run, and what would fit instead."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import pytest

from hunyuan_local.config import load_model_config
from hunyuan_local.errors import ConfigError, GpuMemoryError, ModelLoadError, UnknownModelError
from hunyuan_local.planner import Machine, Plan, find_gpu, parse_memory, plan
from hunyuan_local.planner.cards import gpu_specs, recognise
from hunyuan_local.planner.machine import detect_machine
from hunyuan_local.planner.quantization import FP8_DYNAMIC
from hunyuan_local.schema import GenerationRequest

LARGE, TINY = load_model_config("hunyuan-video"), load_model_config("tiny")
REQUEST = GenerationRequest(prompt="any", width=1280, height=720, num_frames=129, num_inference_steps=50)
GIB = 2**30


def planned(memory: str | None = None, gpu: str | None = None, host: str | None = None, **changes: object) -> Plan:
    spec = None if gpu is None else find_gpu(gpu)
    size = parse_memory(memory, "memory") if memory else spec.memory_bytes
    machine = Machine(size, None if host is None else parse_memory(host, "host"), spec)
    return plan(REQUEST.replace(**changes), LARGE, machine)


def test_every_combination_is_a_mode() -> None:
    modes = {(x.mode.offload, x.mode.quantization, x.mode.vae_tiling) for x in planned("80GiB").modes}
    assert len(modes) == 4 * 4 * 2


@pytest.mark.parametrize("memory", ["16GiB", "24GiB", "48GiB", "80GiB", "141GiB"])
def test_the_choice_is_the_fastest_that_fits(memory: str) -> None:
    found = planned(memory)
    assert found.choice.seconds.total <= 1.05 * min(x.seconds.total for x in found.modes if x.fits)


@pytest.mark.parametrize("memory", ["16GiB", "24GiB", "48GiB", "80GiB"])
def test_of_modes_as_fast_as_each_other_the_plainest_is_taken(memory: str) -> None:
    assert planned(memory).choice.mode.quantization is None


def test_the_text_encoders_leave_before_the_denoising() -> None:
    modes = plan(REQUEST, LARGE, Machine(80 * GIB, None), as_named=True).modes
    peaks = {x.name: x for x in modes}["none+tiling"].peaks
    text_encoder_bytes = 15_000_000_000
    assert peaks["encode"].gpu_bytes > peaks["load"].gpu_bytes + 0.9 * text_encoder_bytes
    assert peaks["denoise"].gpu_bytes < peaks["load"].gpu_bytes + 0.9 * text_encoder_bytes


def test_a_gguf_file_is_not_quantised_again() -> None:
    model = load_model_config("accvideo")
    found = plan(GenerationRequest(prompt="any"), model, Machine(80 * GIB, None))
    assert {x.mode.quantization for x in found.modes if x.fits} == {None}
    assert [text for text in found.assumptions if "GGUF" in text]


def test_what_does_not_fit_says_how_much_it_needs_and_where() -> None:
    found = {x.name: x for x in planned("24GiB").modes}["none+tiling"]
    assert found.reason == "encode: needs 39.0 GiB of GPU memory; the card has 24.0 GiB"


def test_a_card_that_holds_the_tensors_but_not_the_context_does_not_fit() -> None:
    need = {x.name: x for x in planned("24GiB").modes}["model+nf4+tiling"]
    exact = plan(REQUEST, LARGE, Machine(need.gpu_peak_bytes, None))
    assert not {x.name: x for x in exact.modes}["model+nf4+tiling"].fits


def test_more_memory_never_fits_fewer_modes() -> None:
    counts = [sum(x.fits for x in planned(f"{size}GiB").modes) for size in (8, 12, 16, 24, 40, 48, 80, 141)]
    assert counts == sorted(counts)


def test_stage_peaks_are_below_the_peak_of_the_mode() -> None:
    assert all(max(p.gpu_bytes for p in x.peaks.values()) == x.gpu_peak_bytes for x in planned("24GiB").modes)


def test_host_memory_is_checked_where_it_is_known() -> None:
    found = {x.name: x for x in planned("80GiB", host="32GiB").modes}["sequential+tiling"]
    assert found.reason == "decode: needs 40.6 GiB of host memory; the machine has 32.0 GiB"


def test_nothing_fitting_is_refused_with_requests_that_would() -> None:
    found = planned("4608MiB")
    with pytest.raises(GpuMemoryError, match=r"what would fit: 1280x720, \d+ frames .*; or 960x544, 129 frames"):
        found.require_choice()


def test_the_named_requests_do_fit() -> None:
    nearest = planned("4608MiB").nearest
    sizes = [{"width": x.width, "height": x.height, "num_frames": x.num_frames} for x in nearest]
    assert [planned("4608MiB", **size).choice.name for size in sizes] == [x.mode for x in nearest]


def test_one_latent_more_than_the_named_length_does_not_fit() -> None:
    longest = planned("4608MiB").nearest[0]
    assert planned("4608MiB", num_frames=longest.num_frames + 4).choice is None


def test_where_no_request_fits_that_is_reported() -> None:
    with pytest.raises(GpuMemoryError, match="no smaller request"):
        plan(REQUEST, LARGE, Machine(24 * GIB, 1 * GIB)).require_choice()


def test_a_gpu_without_bfloat16_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match=r"compute capability 7\.5 has no bfloat16"):
        planned(gpu="t4").require_choice()


@pytest.mark.parametrize(("gpu", "possible"), [("3090", False), ("a100", False), ("4090", True), ("h100", True)])
def test_dynamic_float8_needs_compute_capability_8_9(gpu: str, possible: bool) -> None:
    spec = find_gpu(gpu)
    found = plan(REQUEST, LARGE, Machine(spec.memory_bytes, None, spec), methods={"fp8": FP8_DYNAMIC})
    mode = {x.name: x for x in found.modes}["group+fp8+tiling"]
    assert (mode.seconds is not None) == possible


def test_an_older_gpu_is_reported_why_it_has_no_dynamic_float8() -> None:
    spec = find_gpu("3090")
    found = plan(REQUEST, LARGE, Machine(spec.memory_bytes, None, spec), methods={"fp8": FP8_DYNAMIC})
    reason = {x.name: x for x in found.modes}["model+fp8+tiling"].reason
    assert reason == "dynamic float8 (torchao) needs compute capability 8.9, this GPU has 8.6"


def test_float8_storage_needs_no_special_gpu() -> None:
    assert {x.name: x for x in planned(gpu="3090").modes}["group+fp8+tiling"].fits


@pytest.mark.parametrize(("quantization", "library"), [("int8", "torchao"), ("nf4", "bitsandbytes")])
def test_a_missing_library_is_a_reason(quantization: str, library: str) -> None:
    found = plan(REQUEST, LARGE, Machine(80 * GIB, None, libraries=frozenset()))
    reason = {x.name: x for x in found.modes}[f"model+{quantization}+tiling"].reason
    assert reason == f"{library} is not installed (pip install 'hunyuan-local[quant]')"


def test_a_whole_picture_of_720p_needs_tiling() -> None:
    assert "needs VAE tiling" in {x.name: x for x in planned("141GiB").modes}["none"].reason


def test_a_small_picture_may_be_decoded_whole() -> None:
    assert planned("141GiB", width=768, height=512, num_frames=121).choice.name == "none"


def test_true_guidance_doubles_the_operations() -> None:
    guided = planned("80GiB", negative_prompt="blur", true_cfg_scale=4.0)
    assert guided.flops_per_step == 2 * planned("80GiB").flops_per_step


def test_operations_a_step_of_the_13_b_model() -> None:
    assert planned("80GiB").flops_per_step / 1e15 == pytest.approx(12.07, rel=1e-3)


def test_group_offload_takes_as_long_as_the_computation_and_the_copies_together() -> None:
    machine = Machine(find_gpu("4090").memory_bytes, None, find_gpu("4090"))
    modes = {x.name: x for x in plan(REQUEST, LARGE, machine, as_named=True).modes}
    copies = modes["group+tiling"].seconds.step - modes["none+tiling"].seconds.step
    assert copies == pytest.approx((25.64e9 - 0.72e9) / (31.5e9 * 0.8), rel=0.01)


def test_group_offload_copies_the_weights_into_page_locked_memory_first() -> None:
    modes = {x.name: x for x in planned(gpu="4090").modes}
    assert modes["group+tiling"].seconds.first > modes["group+tiling"].seconds.total + 20
    assert modes["sequential+tiling"].seconds.first == modes["sequential+tiling"].seconds.total


def test_a_short_video_is_not_streamed_where_the_model_fits() -> None:
    small = {"width": 512, "height": 320, "num_frames": 17, "num_inference_steps": 4}
    assert planned(gpu="h100", **small).choice.mode.offload == "none"


def test_sequential_offload_waits_for_the_bus() -> None:
    modes = {x.name: x for x in planned(gpu="4090").modes}
    assert modes["sequential+tiling"].seconds.step > modes["none+tiling"].seconds.step


def test_a_faster_gpu_takes_less_time() -> None:
    times = [{x.name: x for x in planned("141GiB", gpu=name).modes}["none+tiling"].seconds.total for name in
             ("h100", "a100", "3090")]  # fmt: skip
    assert times == sorted(times)


def test_the_assumed_speed_is_reported() -> None:
    assert any("of which attention reaches 60%" in text for text in planned(gpu="h100").assumptions)


def test_where_only_memory_is_known_the_gpu_whose_speed_is_taken_is_reported() -> None:
    assert any("RTX 4090 24 GB (assumed, because no GPU is named)" in text for text in planned("24GiB").assumptions)


def test_tiny_is_planned_for_the_cpu() -> None:
    found = plan(GenerationRequest(prompt="any"), TINY, Machine(None, 4 * GIB))
    assert (found.choice.name, found.choice.gpu_peak_bytes) == ("none", 0)


def test_on_a_cpu_offload_has_a_reason() -> None:
    found = plan(GenerationRequest(prompt="any"), TINY, Machine(None, 4 * GIB))
    reasons = {x.reason for x in found.modes if x.mode.offload != "none"}
    assert reasons == {"offload needs a CUDA device"}


def test_tiny_is_planned_at_the_size_at_which_it_renders() -> None:
    found = plan(GenerationRequest(prompt="any", width=1280, height=720), TINY, Machine(None, None))
    assert found.render_size == (144, 80)


def test_a_request_takes_the_defaults_of_the_model() -> None:
    found = plan(GenerationRequest(prompt="any"), LARGE, Machine(80 * GIB, None))
    assert (found.request.width, found.request.num_frames, found.request.num_inference_steps) == (1280, 129, 50)


def test_a_checkpoint_of_which_nothing_is_known_is_not_planned_by_a_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UnknownModelError, match=r"'someone/a-finetune-of-hunyuan'.*HF_HUB_OFFLINE is set"):
        plan(REQUEST, load_model_config("someone/a-finetune-of-hunyuan"), Machine(80 * GIB, None))


def test_a_preset_that_is_not_here_is_planned_as_the_13_b_model() -> None:
    assert plan(REQUEST, LARGE, Machine(80 * GIB, None)).weights[0].parameters == 12_821_012_544


def test_a_folder_with_another_kind_of_text_encoder_is_refused(tmp_path: object) -> None:
    for name in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"architectures": ["T5EncoderModel"]}')
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(ModelLoadError, match="is a T5EncoderModel; only"):
        plan(REQUEST, load_model_config(str(tmp_path)), Machine(80 * GIB, None))


def test_json_has_finite_numbers_alone() -> None:
    document = planned(gpu="t4").to_json()
    assert all(x["seconds"] is None or math.isfinite(x["seconds"]) for x in document["modes"])


@pytest.mark.parametrize("text", ["24", "24 apples", "", "0GiB", "-1GiB"])
def test_a_size_without_a_unit_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="gpu_memory="):
        parse_memory(text, "gpu_memory")


@pytest.mark.parametrize(("text", "size"), [("24GiB", 24 * GIB), ("24 gb", 24 * 10**9), ("512MiB", GIB // 2)])
def test_sizes_are_read_with_their_units(text: str, size: int) -> None:
    assert parse_memory(text, "gpu_memory") == size


def test_an_unknown_gpu_is_refused_with_the_names_that_exist() -> None:
    with pytest.raises(ConfigError, match="h100, h100-pcie"):
        find_gpu("voodoo 2")


@pytest.mark.parametrize("name", ["4090", "RTX 4090", "rtx4090", "NVIDIA GeForce RTX 4090"])
def test_a_gpu_is_found_by_its_usual_names(name: str) -> None:
    assert find_gpu(name).name == "4090"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA A100-SXM4-40GB", "a100-40"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA GeForce RTX 4090", "4090"),
    ],
)
def test_a_gpu_is_recognised_by_the_name_that_torch_gives_it(name: str, expected: str) -> None:
    assert recognise(name, 20 * GIB, (8, 0)).name == expected


def test_an_unheard_of_gpu_is_not_taken_for_another() -> None:
    found = recognise("NVIDIA Titan of the Future", 20 * GIB, (13, 0))
    assert (found.title, found.stands_in) == ("NVIDIA Titan of the Future", "NVIDIA GeForce RTX 5080 16 GB")


def test_every_gpu_of_the_table_names_its_source() -> None:
    assert [spec.name for spec in gpu_specs() if not spec.source or not all(spec.shares.sources.values())] == []


def test_this_machine_has_memory() -> None:
    assert detect_machine().host_memory_bytes > 0


def test_a_machine_of_other_memory_gives_another_plan() -> None:
    machine = Machine(24 * GIB, None)
    assert plan(REQUEST, LARGE, replace(machine, gpu_memory_bytes=80 * GIB)).choice.name == "none+tiling"


@pytest.mark.usefixtures("starts_process")
def test_planning_for_a_named_gpu_does_not_load_torch() -> None:
    code = (
        "import sys\n"
        "from hunyuan_local.config import load_model_config\n"
        "from hunyuan_local.planner import Machine, find_gpu, plan\n"
        "from hunyuan_local.schema import GenerationRequest\n"
        "gpu = find_gpu('4090')\n"
        "plan(GenerationRequest(prompt='any'), load_model_config('tiny'), Machine(gpu.memory_bytes, None, gpu))\n"
        "print(*sorted({'torch', 'diffusers', 'transformers'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
