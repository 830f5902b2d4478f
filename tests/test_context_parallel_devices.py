"""The GPUs of several ranks: planned for without a CUDA context in the process that starts the ranks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from hunyuan_local.backends.local.profile_choice import AUTO
from hunyuan_local.backends.multi_gpu import devices
from hunyuan_local.backends.multi_gpu.backend import ParallelBackend
from hunyuan_local.backends.multi_gpu.devices import available_machine
from hunyuan_local.config import GIB, ContextParallel
from hunyuan_local.errors import RankFailedError
from hunyuan_local.pipeline.memory.device import free_device
from hunyuan_local.planner.memory import CUDA_CONTEXT
from hunyuan_local.schema import GenerationRequest

H100, SMALL = "NVIDIA H100 80GB HBM3", "NVIDIA GeForce RTX 4090"
REQUEST = GenerationRequest(prompt="a", width=1280, height=720, num_frames=129)


def gpu(name: str, memory: float, free: float) -> dict[str, object]:
    capability = [9, 0] if name == H100 else [8, 9]
    return {
        "name": name, "memory_bytes": int(memory * GIB), "capability": capability, "free_bytes": int(free * GIB)
    }  # fmt: skip


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Lets the process that asks answer with these GPUs; the list has an entry for each such process."""

    def answer(*found: dict[str, object], stderr: bytes = b"", code: int = 0) -> list[str]:
        asked: list[str] = []

        def run(command: list[str], **options: object) -> subprocess.CompletedProcess[bytes]:
            asked.append(command[-1])
            stdout = b"a line of a library\n" + json.dumps(found).encode() if code == 0 else b""
            return subprocess.CompletedProcess(command, code, stdout, stderr)

        monkeypatch.setattr(devices, "has_cuda_driver", lambda: True)
        monkeypatch.setattr(subprocess, "run", run)
        return asked

    return answer


@pytest.mark.parametrize(("ranks", "name", "available"), [(2, H100, 60 * GIB + CUDA_CONTEXT), (3, SMALL, 23 * GIB)])
def test_the_gpu_with_the_least_memory_of_those_in_use_is_planned_for(
    answers: Callable[..., list[str]], ranks: int, name: str, available: int
) -> None:
    answers(gpu(H100, 79, 78), gpu(H100, 79, 60), gpu(SMALL, 23, 22.9))
    machine = available_machine(ranks)
    assert (machine.gpu.title, machine.gpu_memory_bytes) == (name, available)


def test_a_machine_without_a_gpu_is_planned_for_its_cpu(answers: Callable[..., list[str]]) -> None:
    answers()
    assert available_machine(2).device == "cpu"


def test_gpus_that_cannot_be_asked_are_an_error_with_the_last_line_and_a_remedy(
    answers: Callable[..., list[str]],
) -> None:
    answers(stderr=b"Traceback\nRuntimeError: CUDA unknown error\n", code=1)
    with pytest.raises(RankFailedError, match=r"RuntimeError: CUDA unknown error; check nvidia-smi, or name a --prof"):
        available_machine(2)


def test_the_process_that_asks_answers_in_json(starts_process: None) -> None:
    done = subprocess.run([sys.executable, "-m", devices._PROGRAM], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert [set(one) for one in found] == [set(gpu(H100, 1, 1))] * torch.cuda.device_count()


@pytest.fixture
def no_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs, and calls that would create a CUDA context fail."""

    def fail(*arguments: object) -> None:
        raise AssertionError("creates a CUDA context")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "_lazy_init", fail)
    for name in ("mem_get_info", "synchronize", "get_device_properties", "current_device"):
        monkeypatch.setattr(torch.cuda, name, fail)


@pytest.mark.parametrize("profile", [None, "gpu-80gb"])
def test_the_process_that_starts_the_ranks_creates_no_cuda_context(
    no_context: None, answers: Callable[..., list[str]], profile: str | None
) -> None:
    asked = answers(gpu(H100, 79, 78), gpu(H100, 79, 78))
    backend = ParallelBackend(ContextParallel(degree=2), "hunyuan-video", profile)
    choice = backend._choose(backend.resolve(REQUEST))
    backend.close()
    assert choice.profile.name == (profile or AUTO)
    assert (choice.profile.device, len(asked)) == ("cuda", 1 if profile is None else 0)


def test_memory_that_the_ranks_use_counts_as_available(
    no_context: None, answers: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answers(gpu(H100, 79, 78), gpu(H100, 79, 78))
    backend = ParallelBackend(ContextParallel(degree=2), "hunyuan-video")
    first = backend._choose(backend.resolve(REQUEST))
    monkeypatch.setattr(backend, "_group", object())  # the ranks run
    answers(gpu(H100, 79, 5), gpu(H100, 79, 5))
    assert backend._choose(backend.resolve(REQUEST)).profile == first.profile
    assert len(asked) == 1


def test_a_process_without_a_cuda_context_has_nothing_to_free(no_context: None) -> None:
    free_device()
