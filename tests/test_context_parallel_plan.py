"""Context parallelism: what is refused before any process starts, and its parts alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.backends.multi_gpu import launcher
from hunyuan_local.backends.multi_gpu.backend import ParallelBackend
from hunyuan_local.backends.multi_gpu.command import Command, as_error
from hunyuan_local.backends.multi_gpu.launcher import RankGroup
from hunyuan_local.backends.multi_gpu.limits import check_degree, context_parallel
from hunyuan_local.backends.multi_gpu.rank import as_message, see_own_gpu_alone
from hunyuan_local.backends.registry import get_backend
from hunyuan_local.config import ContextParallel, FirstBlockCache, load_model_config, load_profile
from hunyuan_local.config.kernels import BACKENDS, RING
from hunyuan_local.errors import ConfigError, ContentBlockedError, GpuMemoryError, HunyuanLocalError, RankFailedError
from hunyuan_local.schema import GenerationRequest, SafetyVerdict

CPU, CUDA, TINY, LARGE = (
    load_profile("cpu"),
    load_profile("gpu-80gb"),
    *map(load_model_config, ("tiny", "hunyuan-video")),
)
REQUEST = GenerationRequest(prompt="a", width=1280, height=720, num_frames=129)
# Starts two processes, prints their ids, and waits to be killed.
PARENT = """
import time
from hunyuan_local.backends.multi_gpu.launcher import RankGroup
group = RankGroup(2, "cpu", lambda: False)
print(*group.pids.values(), group.folder, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("mode", ["ulysses", "ring"])
@pytest.mark.parametrize("degree", [2, 3, 4, 8])
def test_the_usual_numbers_of_gpus_share_the_large_model(degree: int, mode: str) -> None:
    check_degree(ContextParallel(degree=degree, mode=mode), LARGE, REQUEST, CUDA, gpus=8)


@pytest.mark.parametrize(
    ("shared", "profile", "gpus", "message"),
    [
        ({"degree": 4}, CUDA, 2, r"context_parallel=4: .* 2 are visible; use at most 2"),
        ({"degree": 2}, CUDA, 1, r"context_parallel=2: .* 1 is visible; omit it"),
        ({"degree": 16}, CUDA, 16, r"context_parallel=16: the 24 attention heads .*use 2, 3, 4, 5, 6, 8, .*24, or"),
        ({"degree": 2}, CPU.model_copy(update={"attention_backend": "native_efficient"}), 0, "attention_backend="),
        (
            {"degree": 2, "mode": "ring"}, CUDA.model_copy(update={"attention_backend": "native"}), 2,
            "attention_backend='native' .* in ring mode; use auto, native_cudnn",
        ),
        ({"degree": 2}, CPU.model_copy(update={"cache": FirstBlockCache(kind="first-block")}), 0, "use a taylorseer"),
        ({"degree": 2}, CPU.model_copy(update={"compile": True}), 0, "compile: false"),
    ],
    ids=["gpus", "one-gpu", "heads", "kernel", "ring-kernel", "first-block", "compile"],
)  # fmt: skip
def test_what_cannot_be_shared_is_refused_with_the_remedy(
    shared: dict, profile: object, gpus: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_degree(ContextParallel(**shared), LARGE, REQUEST, profile, gpus)


def test_a_video_of_fewer_tokens_than_processes_is_refused() -> None:
    request = REQUEST.replace(width=16, height=32, num_frames=1)
    check_degree(ContextParallel(degree=2, mode="ring"), LARGE, request, CPU, 0)
    with pytest.raises(ConfigError, match=r"context_parallel=3: 1 frames of 16x32 have 2 image tokens.*use at most 2"):
        check_degree(ContextParallel(degree=3, mode="ring"), LARGE, request, CPU, 0)


def test_nothing_is_started_for_a_refused_request(tmp_path: Path) -> None:
    backend = get_backend("local", model="tiny", profile="cpu", context_parallel=3)
    with pytest.raises(ConfigError, match="the 4 attention heads of tiny"):
        backend.generate(REQUEST)
    assert backend.pids == []


def test_ulysses_takes_every_kernel_and_ring_those_that_diffusers_shares() -> None:
    from hunyuan_local.pipeline.attention.parallel_attention import why_no_context_parallel

    for mode, expected in (("ulysses", BACKENDS), ("ring", RING)):
        found = {name for name in BACKENDS if why_no_context_parallel(name, mode, "cuda") is None}
        assert found == set(expected)
    assert why_no_context_parallel("native", "ring", "cpu") is None


def test_one_process_is_the_plain_backend() -> None:
    assert isinstance(get_backend("local", model="tiny", profile="cpu", context_parallel=1), LocalBackend)


def test_a_profile_that_was_run_together_is_run_together_again() -> None:
    made = CPU.model_copy(update={"context_parallel": ContextParallel(degree=2, mode="ring")})
    again = get_backend("local", model="tiny", profile=made)
    assert isinstance(again, ParallelBackend)
    assert again.shared == made.context_parallel
    assert isinstance(get_backend("local", model="tiny", profile=made, context_parallel=1), LocalBackend)


@pytest.mark.parametrize(
    ("degree", "mode", "message"),
    [
        (0, None, "context_parallel=0: must be 1"),
        (None, "ring", "context_parallel_mode='ring': has no effect without"),
        (2, "star", "context_parallel_mode='star': must be ulysses or ring"),
    ],
)
def test_options_that_mean_nothing_are_refused(degree: int | None, mode: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        context_parallel(CPU, degree, mode)


def test_a_hosted_backend_has_no_such_option() -> None:
    with pytest.raises(ConfigError, match="context_parallel: not an option of the backend novita"):
        get_backend("novita", api_key="k", context_parallel=2)


def test_frames_depend_on_the_number_of_processes_but_not_on_there_being_one() -> None:
    shared = CPU.model_copy(update={"context_parallel": ContextParallel(degree=2)})
    assert shared.exact_frames["context_parallel"] == {"degree": 2, "mode": "ulysses"}
    assert "context_parallel" not in CPU.exact_frames


def test_memory_that_runs_out_in_one_process_is_reported_with_its_rank_and_a_remedy() -> None:
    said = {"type": "GpuMemoryError", "text": "the device's memory ran out", "stage": "denoise", "peak_bytes": 5}
    error = as_error(1, 2, said)
    assert isinstance(error, GpuMemoryError)
    assert (error.stage, error.peak_bytes) == ("denoise", 5)
    assert str(error).startswith("rank 1 of 2: the device's memory ran out; ")
    assert "use a --profile with more offload" in str(error)


def test_a_withheld_video_keeps_its_verdict_across_processes() -> None:
    verdict = SafetyVerdict(flagged=True, score=0.9, label="nsfw", frame=3, threshold=0.5, frames=5, model="o/n")
    said = json.loads(json.dumps(as_message(ContentBlockedError("withheld", verdict))))
    error = as_error(0, 2, said)
    assert isinstance(error, ContentBlockedError) and error.verdict == verdict


class TwoThatFail:
    """A group whose second process is killed; its leader then fails or dies."""

    size = 2

    def __init__(self, *messages: tuple[int, dict[str, str] | None]) -> None:
        self._messages = list(messages)

    def send(self, kind: str, **content: object) -> None:
        pass

    def next_message(self, timeout_s: float) -> tuple[int, dict[str, str] | None] | None:
        return self._messages.pop(0) if self._messages else None

    def death_of(self, rank: int) -> dict[str, str]:
        return {"kind": "error", "type": "", "text": "was killed"}


@pytest.mark.parametrize(
    "leader", [{"kind": "error", "type": "RuntimeError", "text": "connection closed"}, None], ids=["fails", "dies"]
)
def test_the_process_that_died_is_named_as_the_cause(leader: dict[str, str] | None) -> None:
    messages = [(1, None), (0, leader)] if leader is None else [(0, leader), (1, None)]
    command = Command(TwoThatFail(*messages), "generate")
    command.follow(threading.Event(), lambda rank, message: None)
    with pytest.raises(RankFailedError, match="rank 1 of 2 was killed;"):
        command.raise_failure()


def test_processes_that_do_not_start_are_reported_with_their_last_line(
    starts_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "_PROGRAM", "hunyuan_local.no_such_module")
    with pytest.raises(
        RankFailedError, match=r"could not be started: rank . ended with exit code 1: .*No module named"
    ):
        RankGroup(2, "cpu", lambda: False)


def test_no_process_is_left_when_the_parent_is_killed(starts_process: None) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    *pids, folder = parent.stdout.readline().split()
    pids = list(map(int, pids))
    try:
        assert len(pids) == 2 and Path(folder).is_dir()
        parent.kill()
        parent.wait()
        parent.stdout.close()
        ends = time.monotonic() + 20
        while time.monotonic() < ends and any(map(_is_alive, pids)):
            time.sleep(0.05)
        assert not any(map(_is_alive, pids))
        assert not Path(folder).exists()
    finally:
        for pid in filter(_is_alive, pids):
            os.kill(pid, signal.SIGKILL)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_single_process_refuses_a_profile_of_several() -> None:
    profile = CPU.model_copy(update={"context_parallel": ContextParallel(degree=2)})
    with pytest.raises(ConfigError, match="its context_parallel needs several processes"):
        LocalBackend("tiny", profile).load()


@pytest.mark.parametrize(("visible", "own"), [(None, "1"), ("4,GPU-5f,6", "GPU-5f"), ("", "")])
def test_each_process_sees_its_own_gpu_as_the_first(
    visible: str | None, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    see_own_gpu_alone()
    # With another device number, torch's device mesh would select one that is not visible.
    assert (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["LOCAL_RANK"]) == (own, "0")


def test_a_second_video_of_one_backend_is_refused_at_once() -> None:
    backend = ParallelBackend(ContextParallel(degree=2, mode="ulysses"), "tiny", "cpu")
    with backend._one_at_a_time, pytest.raises(HunyuanLocalError, match="one video at a time"):
        backend.generate(GenerationRequest(prompt="a cat"))
