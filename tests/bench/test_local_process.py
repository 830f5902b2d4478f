"""The process that makes local videos: what it measures, what its death leaves, and how it is stopped."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import psutil
import pytest

from hunyuan_local.bench.makers import LocalMaker
from hunyuan_local.bench.outcome import Outcome
from hunyuan_local.bench.plan import PlannedRun
from hunyuan_local.bench.process import LocalProcess
from hunyuan_local.bench.targets import local_target
from hunyuan_local.capabilities import Capabilities
from hunyuan_local.config import load_model_config
from hunyuan_local.schema import GenerationRequest
from hunyuan_local.video import probe

pytestmark = pytest.mark.timeout(900)  # a process imports every library before it begins

TINY = load_model_config("tiny")
SHORT = GenerationRequest(
    prompt="a red circle moving right", width=144, height=80, num_frames=5, num_inference_steps=2, seed=1
)
LONG = SHORT.replace(num_inference_steps=100, num_frames=33)


def planned(request: GenerationRequest, repeat: int) -> PlannedRun:
    return PlannedRun("local", "a", request, 0, repeat)


class Lived:
    """One life of a maker: a run, one in which its process is killed, one after it, one that is interrupted."""

    def __init__(self, folder: Path):
        process = LocalProcess({"model": TINY, "profile": "cpu"})
        maker = LocalMaker(local_target(TINY, None, None, ""), Capabilities(), folder, process)
        self.folder = folder / "local"
        self.card = process.ask("card")
        self.first = maker.make(planned(SHORT, 0))
        self.second = maker.make(planned(SHORT, 1))
        self.failed = self._while_it_works(maker, process.pid, signal.SIGKILL)
        self.left_by_death = self._unfinished()
        self.after = maker.make(planned(SHORT, 3))
        pid = process.pid
        with pytest.raises(KeyboardInterrupt):
            self._while_it_works(maker, os.getpid(), signal.SIGINT)
        self.is_gone = not psutil.pid_exists(pid)
        self.left_by_interrupt = self._unfinished()
        maker.close()

    def _while_it_works(self, maker: LocalMaker, pid: int, number: int) -> Outcome:
        """Make a long video; meanwhile the process with this number gets a signal."""
        timer = threading.Timer(0.5, os.kill, (pid, number))
        timer.start()
        try:
            return maker.make(planned(LONG, 2))
        finally:
            timer.join()

    def _unfinished(self) -> list[str]:
        return [path.name for path in self.folder.iterdir() if path.suffix != ".mp4"]


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    return Lived(tmp_path_factory.mktemp("local"))


def test_a_run_is_measured(lived: Lived) -> None:
    assert lived.first.error == ""
    assert lived.first.total_s >= lived.first.result.timings.denoise_s > 0
    assert lived.first.device.startswith("cpu")
    assert probe(lived.first.result.path).num_frames == 5


def test_the_model_stays_loaded(lived: Lived) -> None:
    assert lived.second.result.timings.load_s < lived.first.result.timings.load_s / 5


def test_a_prompt_is_encoded_in_every_run(lived: Lived) -> None:
    # A look-up of what is known takes microseconds, and the encoders of tiny some milliseconds.
    assert lived.second.result.timings.encode_s > 1e-3


def test_the_peak_is_that_of_the_process_in_this_run(lived: Lived) -> None:
    assert lived.second.memory_of == "process"
    assert 10**8 < lived.second.peak_memory_bytes < psutil.virtual_memory().total


def test_a_process_that_is_killed_is_a_failed_run(lived: Lived) -> None:
    assert lived.failed.result is None
    assert lived.failed.error_kind == "ProcessDied"
    assert "SIGKILL, as the system does when main memory runs out" in lived.failed.error


def test_nothing_unfinished_stays_behind(lived: Lived) -> None:
    assert (lived.left_by_death, lived.left_by_interrupt) == ([], [])


def test_the_next_run_has_a_new_process_and_says_that_it_loads(lived: Lived) -> None:
    assert lived.after.error == ""
    assert lived.after.result.timings.load_s > lived.second.result.timings.load_s * 5
    assert "the process before this one died, so loading the model is part of this run" in lived.after.notes


def test_ctrl_c_ends_the_process(lived: Lived) -> None:
    assert lived.is_gone


def test_the_card_says_what_times_depend_on_and_not_whose_machine_it_is(lived: Lived) -> None:
    assert {"gpu", "cpu", "host_memory_bytes", "versions", "allocator", "system", "threads"} <= lived.card.keys()
    assert lived.card["versions"]["torch"] and lived.card["threads"]["torch"] >= 1
    assert os.uname().nodename not in str(lived.card).split()
