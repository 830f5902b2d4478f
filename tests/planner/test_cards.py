"""The known GPUs: recognised by their whole names, with a source and a range for every number that is assumed."""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from hunyuan_local.config import load_model_config
from hunyuan_local.config.allocator import Allocator
from hunyuan_local.errors import ConfigError
from hunyuan_local.pipeline.memory import device
from hunyuan_local.pipeline.memory.device import CudaDevice
from hunyuan_local.planner import Machine, Plan, find_gpu, plan
from hunyuan_local.planner import machine as machine_module
from hunyuan_local.planner.cards import GUESS, KINDS, gpu_specs, recognise
from hunyuan_local.planner.machine import detect_machine
from hunyuan_local.schema import GenerationRequest

LARGE = load_model_config("hunyuan-video")
GIB = 2**30
REQUEST = GenerationRequest(prompt="any", width=1280, height=720, num_frames=129, num_inference_steps=50)


def planned(name: str, memory_gib: float, capability: tuple[int, int], vendor: str = "nvidia") -> Plan:
    gpu = recognise(name, round(memory_gib * GIB), capability, vendor)
    return plan(REQUEST, LARGE, Machine(round(memory_gib * GIB), None, gpu))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 NVL", "h100-nvl"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA H200 NVL", "h200-nvl"),
        ("NVIDIA GH200 480GB", "gh200"),
        ("NVIDIA B200", "b200"),
        ("NVIDIA GB200", "gb200"),
        ("NVIDIA A100 80GB PCIe", "a100-pcie"),
        ("NVIDIA A10", "a10"),
        ("NVIDIA A10G", "a10g"),
        ("NVIDIA L40", "l40"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx-6000-ada"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "rtx-pro-6000"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx-pro-6000-server"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "rtx-pro-6000-max-q"),
        ("NVIDIA GeForce RTX 5080", "5080"),
        ("NVIDIA GeForce RTX 5070 Ti", "5070-ti"),
        ("NVIDIA GeForce RTX 5070", "5070"),
        ("NVIDIA GeForce RTX 4090", "4090"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "4090-laptop"),
        ("NVIDIA GeForce RTX 4080 SUPER", "4080-super"),
        ("NVIDIA GeForce RTX 4070 Ti", "4070-ti"),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", "4070-ti-super"),
        ("NVIDIA GeForce RTX 3090 Ti", "3090-ti"),
        ("Tesla T4", "t4"),
    ],
)
def test_each_card_is_recognised_as_itself(name: str, expected: str) -> None:
    assert (recognise(name, 20 * GIB, (9, 0)).name, recognise(name, 20 * GIB, (9, 0)).stands_in) == (expected, None)


@pytest.mark.parametrize("name", ["AMD Instinct MI300X", "AMD Instinct MI300A", "AMD Instinct MI325X"])
def test_amds_cards_are_recognised_and_have_no_compute_capability(name: str) -> None:
    found = recognise(name, 192 * GIB, (9, 4), "amd")
    assert (found.stands_in, found.compute_capability, found.vendor) == (None, None, "amd")


@pytest.mark.parametrize(
    ("name", "gib", "capability"),
    [
        ("NVIDIA H100 80GB HBM3 MIG 3g.40gb", 39.5, (9, 0)),
        ("NVIDIA GeForce RTX 4090 D", 23.6, (8, 9)),
        ("NVIDIA GeForce RTX 5090 Laptop GPU", 23.9, (12, 0)),
        ("NVIDIA L40S-48Q", 44.0, (8, 9)),
        ("NVIDIA H100 64GB of a supercomputer", 63.0, (9, 0)),
        ("NVIDIA B300 SXM6 AC", 267.0, (10, 3)),
        ("Quadro RTX 6000", 23.6, (7, 5)),
    ],
)
def test_a_card_with_another_name_is_a_guess(name: str, gib: float, capability: tuple[int, int]) -> None:
    found = recognise(name, round(gib * GIB), capability)
    assert found.stands_in is not None and found.title == name
    assert (found.compute_capability, found.nvlink_gbs, found.measured) == (capability, 0.0, False)


def test_an_unknown_card_without_bfloat16_is_refused_as_a_known_one_is() -> None:
    with pytest.raises(ConfigError, match=r"compute capability 7\.5 has no bfloat16"):
        planned("Quadro RTX 6000", 23.6, (7, 5)).require_choice()


def test_an_unknown_amd_card_is_a_guess_among_amds() -> None:
    assert recognise("AMD Radeon RX 7900 XTX", 24 * GIB, (11, 0), "amd").stands_in.startswith("AMD Instinct")


def test_the_plan_says_that_a_card_is_a_guess() -> None:
    notes = planned("NVIDIA GeForce RTX 5090 Laptop GPU", 23.9, (12, 0)).notes
    assert notes[0].startswith(
        "NVIDIA GeForce RTX 5090 Laptop GPU is not in the list of known GPUs: its speed is a guess, that of NVIDIA "
    )


def test_an_unknown_cards_range_is_wider_than_that_of_the_card_it_is_like() -> None:
    ends = {
        name: {x.name: x for x in planned(name, 23.6, (8, 9)).modes}["group+tiling"].seconds_range
        for name in ("NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 4090 D")
    }
    known, guess = ends.values()
    assert guess[0] < known[0] and known[1] < guess[1] and guess[1] / guess[0] > 2


def test_the_time_of_a_card_that_was_measured_is_one_number() -> None:
    assert planned("NVIDIA H100 80GB HBM3", 79.1, (9, 0)).choice.seconds_range is None


@pytest.mark.parametrize("gpu", ["4090", "l20", "h100-nvl", "b200", "mi300x"])
def test_the_time_of_every_other_card_is_a_range_around_the_estimate(gpu: str) -> None:
    spec = find_gpu(gpu)
    found = plan(REQUEST, LARGE, Machine(spec.memory_bytes, None, spec)).choice
    assert found.seconds_range[0] < found.seconds.total < found.seconds_range[1]


def test_a_card_of_which_only_the_memory_is_known_has_a_range() -> None:
    found = plan(REQUEST, LARGE, Machine(80 * GIB, None)).choice
    assert found.seconds_range[1] / found.seconds_range[0] > 2


def test_every_share_has_a_source_and_lies_in_its_range() -> None:
    for spec in gpu_specs():
        assert spec.shares.sources.keys() == set(KINDS) and all(spec.shares.sources.values())
        for kind in KINDS:
            low, share, high = (getattr(end.utilisation, kind) for end in (spec.slowest, spec, spec.fastest))
            assert 0 < low <= share <= high <= 1


def test_no_two_cards_have_a_name_in_common() -> None:
    names = [name for spec in gpu_specs() for name in (spec.name, *spec.aliases)]
    assert len(names) == len(set(names))
    assert [spec.name for spec in gpu_specs() if find_gpu(spec.name) != spec] == []


@pytest.mark.parametrize("spec", [s for s in gpu_specs() if s.bf16_range], ids=lambda spec: spec.name)
def test_a_card_of_several_power_limits_contains_its_own_number(spec: object) -> None:
    assert spec.slowest.bf16_tflops <= spec.bf16_tflops <= spec.fastest.bf16_tflops


@pytest.mark.parametrize("name", ["NVIDIA H100 NVL", "h100-nvl", "NVIDIA GeForce RTX 4090 Laptop GPU", "MI300X"])
def test_a_card_is_found_by_the_name_that_torch_gives_it(name: str) -> None:
    assert find_gpu(name).stands_in is None


def test_the_limits_of_a_guess_contain_the_card_itself() -> None:
    assert GUESS[0] < 1 < GUESS[1]


# What torch says.


@pytest.fixture
def visible(monkeypatch: pytest.MonkeyPatch) -> list[CudaDevice]:
    """The devices that torch sees on a machine with a driver."""
    devices: list[CudaDevice] = []
    monkeypatch.setattr(machine_module, "has_cuda_driver", lambda: True)
    monkeypatch.setattr(device, "cuda_devices", lambda: devices)
    return devices


def test_a_build_of_torch_for_amd_is_planned_as_what_it_is(visible: list[CudaDevice]) -> None:
    visible.append(CudaDevice("AMD Instinct MI300X", 192 * GIB, (9, 4), "7.0.51831"))
    found = detect_machine()
    assert (found.device, found.gpu.name, found.allocator.expandable) == ("cuda", "mi300x", False)
    assert found.gpu.compute_capability is None  # Hopper's is 9.0, and no rule for NVIDIA's GPUs applies


def test_nvidias_gpus_have_expandable_segments(visible: list[CudaDevice], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    visible.append(CudaDevice("NVIDIA H100 NVL", 93 * GIB, (9, 0)))
    assert (detect_machine().gpu.name, detect_machine().allocator) == ("h100-nvl", Allocator())


@pytest.mark.parametrize(("library", "expected"), [("libtorch_hip.so", True), ("libtorch_cuda.so", False)])
def test_a_build_for_amd_is_recognised_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, expected: bool
) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / library).touch()
    spec = ModuleSpec("torch", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]

    def nothing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(machine_module.ctypes, "CDLL", nothing)
    monkeypatch.setattr(machine_module.importlib.util, "find_spec", lambda name: spec)
    assert machine_module.has_cuda_driver() == expected


def test_a_machine_can_be_a_key() -> None:
    assert hash(Machine(80 * GIB, None, find_gpu("h100"))) == hash(Machine(80 * GIB, None, find_gpu("h100")))


@pytest.mark.parametrize(
    ("hip", "cuda", "platform", "missing"),
    [
        (
            "7.0.51831",
            None,
            "ROCm 7.0.51831",
            "this build of torch is for AMD's GPUs (ROCm), and no AMD GPU is visible",
        ),
        (None, "13.0", "CUDA 13.0", "no CUDA device is visible"),
        (None, None, "CUDA None", "this build of torch has no CUDA"),
    ],
)
def test_a_build_of_torch_is_called_what_it_is(
    monkeypatch: pytest.MonkeyPatch, hip: str | None, cuda: str | None, platform: str, missing: str
) -> None:
    monkeypatch.setattr(device.torch.version, "hip", hip)
    monkeypatch.setattr(device.torch.version, "cuda", cuda)
    monkeypatch.setattr(device.torch.cuda, "is_available", lambda: False)
    assert (device.platform_of_torch(), device.why_no_gpu()) == (platform, missing)
