"""Whole benches: local and our own server through both adapters; a stand-in of the services, with an interruption."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import run_here
from standin import StandIn, sample_video

from hunyuan_local.bench.result import BenchResult, BenchRun, load_result

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from server_process import ServerProcess, own_environment

pytestmark = pytest.mark.timeout(900)  # a process imports every library before it begins

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


def variables(folder: Path) -> dict[str, str]:
    """Keys, and the open tasks in a folder of the test."""
    return {"WAVESPEED_API_KEY": KEY, "NOVITA_API_KEY": KEY, "HUNYUAN_LOCAL_STATE_DIR": str(folder / "state")}


class Measured:
    """A bench that has run to its end."""

    def __init__(self, folder: Path, *arguments: str):
        (folder / "whole.yaml").write_text(json.dumps(SCENARIOS))
        command = ["bench", "--scenarios", "whole.yaml", "--output-dir", "out", *arguments]
        self.done = run_here(*command, cwd=folder, **variables(folder))
        assert self.done.returncode == 0, self.done.stderr
        self.result: BenchResult = load_result(folder / "out" / "result.json")
        self.summary: dict[str, Any] = json.loads(self.done.stdout.splitlines()[-1])
        self.report = (folder / "out" / "report.md").read_text()

    def row(self, backend: str) -> BenchRun:
        """The one measured row of a backend."""
        (row,) = (row for row in self.result.runs if row.backend.split()[0] == backend)
        return row


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    """The local backend, and our own server in the formats of both services."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "keys").write_text(f"{KEY}\n")
    options = ["--model", "tiny", "--profile", "cpu", "--api-keys-file", folder / "keys", "--min-free-gib", 0]
    server = ServerProcess(folder / "data", folder / "serve.log", *options, key=KEY)
    try:
        server.wait_until_ready()
        urls = [f"--backend={name}={server.url}" for name in ("wavespeed", "novita")]
        yield Measured(folder, "--backend=local", "--model=tiny", "--profile=cpu", *urls)
    finally:
        server.stop()


BACKENDS = ["local", "wavespeed", "novita"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_has_made_the_video(measured: Measured, backend: str) -> None:
    row = measured.row(backend)
    assert row.status == "succeeded"
    assert (row.video.width, row.video.height, row.made.num_inference_steps, row.made.seed) == (1280, 720, 2, 7)
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


# ---- interrupted -----------------------------------------------------------------------------------------------------


class Interrupted:
    """A bench at two stand-ins that got Ctrl-C while it waited for its second task, and was then gone on with."""

    def __init__(self, folder: Path):
        (folder / "whole.yaml").write_text(json.dumps(SCENARIOS))
        with (
            StandIn(sample_video(), key=KEY, polls_until_done=0) as quick,
            StandIn(sample_video(), key=KEY, polls_until_done=0, task_s=3600) as slow,
        ):
            urls = [f"--backend=wavespeed={quick.url}", f"--backend=novita={slow.url}"]
            self.command = ["bench", "--scenarios", "whole.yaml", "--output-dir", "out", *urls]
            self.first = self._interrupt(folder, slow)
            self.rows = load_result(folder / "out" / "result.json").runs
            self.report = (folder / "out" / "report.md").read_text()
            slow.finish_tasks()
            self.again = run_here(*self.command, cwd=folder, **variables(folder))
            self.submissions = len(quick.submissions) + len(slow.submissions)
        self.result = load_result(folder / "out" / "result.json")

    def _interrupt(self, folder: Path, slow: StandIn) -> tuple[int, str, str]:
        program = [sys.executable, "-c", "from hunyuan_local.cli.main import main; main()"]
        process = subprocess.Popen(
            [*program, *self.command], cwd=folder, env=own_environment() | variables(folder), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 300
            while not slow.polls:
                assert process.poll() is None and time.monotonic() < deadline, "the second task was not submitted"
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=120)
        finally:
            process.kill()
        return process.returncode, stdout, stderr


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    return Interrupted(tmp_path_factory.mktemp("interrupted"))


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(interrupted: Interrupted) -> None:
    code, stdout, stderr = interrupted.first
    assert code == 130, stderr
    assert json.loads(stdout.splitlines()[-1])["is_complete"] is False
    assert "the same command with --output-dir out goes on" in stderr.splitlines()[-1]
    assert len(interrupted.rows) == 1 and interrupted.report


def test_the_same_command_continues_the_open_task_without_a_new_one(interrupted: Interrupted) -> None:
    assert interrupted.again.returncode == 0, interrupted.again.stderr
    assert interrupted.submissions == 2
    assert sorted(row.status for row in interrupted.result.runs if row.repeat == 0) == ["interrupted", "succeeded"]
