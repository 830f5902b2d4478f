"""The process that generates local videos, without a model; test_bench_end_to_end covers the rest."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch

from hunyuan_local.bench.results.result import LOADED
from hunyuan_local.bench.run.local_process import LocalProcess
from hunyuan_local.bench.run.local_program import UncachedBackend, _begin_anew
from hunyuan_local.bench.run.makers import LocalMaker
from hunyuan_local.bench.run.outcome import Outcome
from hunyuan_local.bench.run.plan import PlannedRun
from hunyuan_local.bench.run.targets import local_target
from hunyuan_local.capabilities import Capabilities
from hunyuan_local.config import load_model_config
from hunyuan_local.planner.host_memory import resident_peak
from hunyuan_local.schema import GenerationRequest

TINY = load_model_config("tiny")
SHORT = GenerationRequest(prompt="a red circle", width=144, height=80, num_frames=5, num_inference_steps=2, seed=1)


def test_ctrl_c_while_it_is_being_started_is_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(process: LocalProcess) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalProcess, "_start", start)
    with pytest.raises(KeyboardInterrupt):
        LocalProcess({}).ask("card")


def test_a_first_run_without_a_warm_up_says_that_it_loads(tmp_path: Path) -> None:
    class Loads:
        """A process that answers with a run that loaded the model."""

        pid = 1

        def ask(self, *order: object) -> Outcome:
            return Outcome(error="any", has_loaded=True)

    def notes(kind: str) -> list[str]:
        maker = LocalMaker(local_target(TINY, None, None, ""), Capabilities(), tmp_path, Loads())
        return maker.make(PlannedRun("local", "a", SHORT, 0, 0, kind)).notes

    (note,) = notes("measured")
    assert note.startswith(LOADED) and "there was no warm-up; set 'warmup: {local: 1}'" in note
    assert notes("warmup") == []


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps freed memory")
def test_a_run_begins_without_the_memory_that_an_earlier_one_kept() -> None:
    backend = UncachedBackend("tiny", "cpu")
    tensors = [torch.ones(2**24) for _ in range(8)]  # 64 MiB each
    assert _begin_anew(backend)
    held = resident_peak()
    del tensors
    assert _begin_anew(backend)
    assert resident_peak() < held - 400 * 2**20
