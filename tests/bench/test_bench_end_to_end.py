"""A whole bench: the local backend, our server through both adapters, and the local process.

All with one local process after another that was killed while it loaded: to load takes longer than all else. And all
videos have five frames: tiny's usual number is lowered, and so are the limits that novita's format has.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from command_line import run_here

from hunyuan_local.bench.results.result import LOADED, BenchResult, BenchRun, load_result
from hunyuan_local.bench.run import session
from hunyuan_local.bench.run.local_process import LocalProcess
from hunyuan_local.bench.run.makers import LocalMaker
from hunyuan_local.bench.run.outcome import Outcome
from hunyuan_local.bench.run.plan import PlannedRun
from hunyuan_local.bench.run.targets import local_target
from hunyuan_local.capabilities import Capabilities
from hunyuan_local.config import ModelConfig, load_model_config
from hunyuan_local.config.places import configs_dir
from hunyuan_local.schema import GenerationRequest
from hunyuan_local.video import probe
from hunyuan_local.wires import novita

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from server_process import ServerProcess

pytestmark = pytest.mark.timeout(900)  # a process imports every library before it begins

FRAMES = 5
SHORT = GenerationRequest(
    prompt="a red circle moving right", width=144, height=80, num_frames=FRAMES, num_inference_steps=2, seed=1
)
LONG = SHORT.replace(num_inference_steps=100, num_frames=33)
KEY = "test-key-0123456789"
SCENARIOS = {
    "name": "whole",
    "repeats": 1,
    "warmup": {"local": 0},
    "costs": {"usd_per_hour": 3.6, "source": "made up"},
    "scenarios": [
        {
            "name": "what all hold",
            "prompts": ["a red circle moving right on a black background"],
            "sizes": ["1280x720"],
            "num_inference_steps": [2],
            "seeds": [7],
        }
    ],
}


class Measured:
    """A bench that ran to completion."""

    def __init__(self, folder: Path, *arguments: str):
        (folder / "whole.yaml").write_text(json.dumps(SCENARIOS))
        command = ["bench", "--scenarios", "whole.yaml", "--output-dir", "out", *arguments]
        keys = {"WAVESPEED_API_KEY": KEY, "NOVITA_API_KEY": KEY}
        self.done = run_here(*command, cwd=folder, **keys, HUNYUAN_LOCAL_STATE_DIR=str(folder / "state"))
        assert self.done.returncode == 0, self.done.stderr
        self.result: BenchResult = load_result(folder / "out" / "result.json")
        self.summary: dict[str, Any] = json.loads(self.done.stdout.splitlines()[-1])
        self.report = (folder / "out" / "report.md").read_text()

    def row(self, backend: str) -> BenchRun:
        """The only measured row of a backend."""
        (row,) = (row for row in self.result.runs if row.backend.split()[0] == backend)
        return row


class Life:
    """A maker with four runs: in the first its process is killed, two succeed, and the last is interrupted."""

    def __init__(self, folder: Path, model: ModelConfig):
        self.process = LocalProcess({"model": model, "profile": "cpu", "cache": None})
        self.maker = LocalMaker(local_target(model, None, None, ""), Capabilities(), folder, self.process)
        self.folder = folder / "local"
        self.folder.mkdir()
        (self.folder / ".000-a-measured-0.mp4.partial").touch()  # as of a video that is being written
        self.failed = self._while_it_works(lambda: self.process.pid, signal.SIGKILL)
        self.left_by_death = self._unfinished()
        self.card = self.process.ask("card")
        self.after, self.second = (self.maker.make(PlannedRun("local", "a", SHORT, 0, i)) for i in (1, 2))

    def interrupt(self) -> None:
        """Press Ctrl-C during a run."""
        pid = self.process.pid
        with pytest.raises(KeyboardInterrupt):
            self._while_it_works(os.getpid, signal.SIGINT)
        self.is_gone = not psutil.pid_exists(pid)
        self.left_by_interrupt = self._unfinished()

    def _while_it_works(self, pid: Callable[[], int | None], number: int) -> Outcome:
        """Generate a long video, and meanwhile send a signal to the process as soon as it exists."""

        def strike() -> None:
            while pid() is None:
                time.sleep(0.05)
            os.kill(pid(), number)

        timer = threading.Timer(0.5, strike)
        timer.start()
        try:
            return self.maker.make(PlannedRun("local", "a", LONG, 1, 0))
        finally:
            timer.join()

    def _unfinished(self) -> list[str]:
        return [path.name for path in self.folder.iterdir() if path.suffix != ".mp4"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of tiny with another default for the number of frames."""
    usual = (configs_dir() / "models" / "tiny.yaml").read_text()
    path = tmp_path_factory.mktemp("model") / "tiny.yaml"
    path.write_text(usual.replace("num_frames: 17", f"num_frames: {FRAMES}"))
    assert load_model_config(str(path)).defaults.num_frames == FRAMES
    return path


@pytest.fixture(scope="module")
def life(starts_process: None, tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Life]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores Ctrl-C
    life = Life(tmp_path_factory.mktemp("life"), load_model_config(str(model)))
    try:
        yield life
    finally:
        life.process.close()
        signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, model: Path, life: Life) -> Measured:
    """The local backend in the process of ``life``, and our server in the formats of both services."""

    def shared(options: dict[str, Any]) -> LocalProcess:
        assert options == life.process.options
        return life.process

    folder = tmp_path_factory.mktemp("own")
    (folder / "keys").write_text(f"{KEY}\n")
    options = ["--model", model, "--profile", "cpu", "--api-keys-file", folder / "keys", "--min-free-gib", 0]
    server = ServerProcess(folder / "data", folder / "serve.log", *options, "--relaxed", key=KEY)
    limits = novita.CAPABILITIES
    fewer = {"frames": (FRAMES, 129), "defaults": limits.defaults | {"num_frames": FRAMES}}
    try:
        server.wait_until_ready()
        urls = [f"--backend={name}={server.url}" for name in ("wavespeed", "novita")]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(session, "LocalProcess", shared)
            patch.setattr(life.process, "close", lambda: None)  # later tests use it
            patch.setattr(novita, "CAPABILITIES", limits.model_copy(update=fewer))
            return Measured(folder, "--backend=local", f"--model={model}", "--profile=cpu", *urls)
    finally:
        server.stop()


@pytest.fixture(scope="module")
def interrupted(life: Life, measured: Measured) -> Life:
    """The process after its last run, which is stopped; requested last, because nothing can be measured afterwards."""
    life.interrupt()
    return life


BACKENDS = ["local", "wavespeed", "novita"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_has_made_the_video(measured: Measured, backend: str) -> None:
    row = measured.row(backend)
    assert row.status == "succeeded"
    assert (row.video.width, row.video.height, row.made.num_inference_steps, row.made.seed) == (1280, 720, 2, 7)
    assert row.video.num_frames == FRAMES
    assert row.stages.total_s > 0 and row.seconds_per_step > 0


def test_each_row_says_where_it_came_from(measured: Measured) -> None:
    origins = {target.backend: target.origin for target in measured.result.targets}
    assert origins["local"] == "measured on this machine"
    assert "in the format of wavespeed, not the service" in origins["wavespeed"]
    assert "in the format of novita, not the service" in origins["novita"]
    assert not any(target.is_billed for target in measured.result.targets)


def test_the_report_says_so_too(measured: Measured) -> None:
    assert "not the service" in measured.report and "measured on this machine" in measured.report


def test_a_local_run_has_memory_and_cost(measured: Measured) -> None:
    row = measured.row("local")
    assert row.memory_of == "process" and row.peak_memory_bytes > 10**8
    assert row.cost_usd == pytest.approx(row.stages.total_s / 1000)
    assert "made up" in row.cost_source


def test_our_server_tells_its_running_in_one_of_the_formats(measured: Measured) -> None:
    assert measured.row("wavespeed").stages.poll_s is not None
    assert measured.row("novita").stages.poll_s is None


def test_what_made_the_local_videos_is_written_down(measured: Measured) -> None:
    (local,) = (target for target in measured.result.targets if target.backend == "local")
    assert (local.model, local.profile) == ("tiny", "cpu")
    assert local.device.startswith("cpu") and "headers-sha256:" in local.identity


def test_the_last_line_is_json_with_the_paths(measured: Measured) -> None:
    paths = measured.summary["paths"]
    assert (paths["result"], paths["report"], paths["videos"]) == ("out/result.json", "out/report.md", "out/videos")
    assert measured.summary["is_complete"]


def test_there_is_one_line_a_run(measured: Measured) -> None:
    lines = [line for line in measured.done.stderr.splitlines() if line[:2] in ("1/", "2/", "3/")]
    assert [line.split(", ")[0].split()[1] for line in lines] == BACKENDS
    assert all(len(line) <= 80 for line in lines)


# ---- the life of the local process -----------------------------------------------------------------------------------


def test_a_run_is_measured(life: Life) -> None:
    assert life.after.error == ""
    assert life.after.total_s >= life.after.result.timings.denoise_s > 0
    assert life.after.device.startswith("cpu")
    assert probe(life.after.result.path).num_frames == 5


def test_the_model_stays_loaded(life: Life) -> None:
    assert life.second.result.timings.load_s < life.after.result.timings.load_s / 5
    assert not any(note.startswith(LOADED) for note in life.second.notes)


def test_a_prompt_is_encoded_in_every_run(life: Life) -> None:
    # A cache hit takes microseconds; the encoders of tiny take milliseconds.
    assert life.second.result.timings.encode_s > 1e-3


def test_the_peak_is_that_of_the_process_in_this_run(life: Life) -> None:
    assert life.second.memory_of == "process"
    assert 10**8 < life.second.peak_memory_bytes < psutil.virtual_memory().total


def test_a_process_that_is_killed_is_a_failed_run(life: Life) -> None:
    assert life.failed.result is None
    assert life.failed.error_kind == "ProcessDied"
    assert "SIGKILL, probably because main memory ran out" in life.failed.error


def test_the_next_run_has_a_new_process_and_says_that_it_loads(life: Life) -> None:
    assert life.after.has_loaded
    assert f"{LOADED}: the previous process died" in life.after.notes


def test_the_card_says_what_times_depend_on_and_not_whose_machine_it_is(life: Life) -> None:
    assert {"gpu", "cpu", "host_memory_bytes", "versions", "allocator", "system", "threads"} <= life.card.keys()
    assert life.card["versions"]["torch"] and life.card["threads"]["torch"] >= 1
    assert os.uname().nodename not in str(life.card).split()


def test_ctrl_c_ends_the_process(interrupted: Life) -> None:
    assert interrupted.is_gone


def test_nothing_unfinished_stays_behind(interrupted: Life) -> None:
    assert (interrupted.left_by_death, interrupted.left_by_interrupt) == ([], [])
