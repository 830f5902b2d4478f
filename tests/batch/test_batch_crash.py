"""A batch whose processes are killed three times: nothing is lost or repeated, and all frames are equal."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hunyuan_local.backends.base import GenerationContext
from hunyuan_local.backends.local.backend import LocalBackend
from hunyuan_local.jobs.folder import DataFolder
from hunyuan_local.provenance import read_provenance
from hunyuan_local.schema import GenerationRequest

PROMPTS = [
    f"a {colour} {shape} moves {way}"
    for colour in ("red", "green")
    for shape in ("circle", "square")
    for way in ("left", "right")
]
REQUESTS = [
    GenerationRequest(prompt=prompt, width=96, height=64, num_frames=5, num_inference_steps=2, seed=100 + number)
    for number, prompt in enumerate(PROMPTS)
]
COUNT = len(REQUESTS)
LIMIT_S = 240.0


class Killed:
    """The folder of a batch whose processes were killed after 1, 3 and 5 videos, and which then ran to completion.

    First all processes are killed, then only the parent, and last only the worker, which its parent must replace.
    """

    def __init__(self, folder: Path):
        self.out = folder / "out"
        self._file = folder / "prompts.jsonl"
        self._file.write_text("".join(request.model_dump_json(exclude_none=True) + "\n" for request in REQUESTS))
        self._kill_after(1, "parent and worker")
        self._kill_after(3, "parent")
        last = self._kill_after(5, "worker")
        stdout, stderr = last.communicate(timeout=LIMIT_S)
        assert last.returncode == 0, stderr
        self.summary = json.loads(stdout.splitlines()[-1])

    @property
    def _command(self) -> list[str]:
        options = ["--model", "tiny", "--profile", "cpu", "--min-free-gib", "0.1", "--checkpoint-every", "1", "--json"]
        program = [sys.executable, "-m", "hunyuan_local"]
        return [*program, "batch", str(self._file), "--output-dir", str(self.out), *options]

    def _kill_after(self, videos: int, what: str) -> subprocess.Popen[str]:
        """Start or resume the batch, and kill the given process once this many videos exist."""
        batch = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + LIMIT_S
        while len(self.videos) < videos:
            assert batch.poll() is None and time.monotonic() < deadline, "the batch did not get so far"
            time.sleep(0.02)
        parent = psutil.Process(batch.pid)
        workers = parent.children(recursive=True)
        assert workers
        killed = {"parent and worker": [*workers, parent], "parent": [parent], "worker": workers}[what]
        for process in killed:
            process.kill()
        if parent in killed:
            batch.communicate()
        psutil.wait_procs(workers, timeout=60)  # orphans save their state and end by themselves
        return batch

    @property
    def videos(self) -> list[Path]:
        return sorted(self.out.glob("*.mp4"))


@pytest.fixture(scope="module")
def killed(starts_process: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killed]:
    yield Killed(tmp_path_factory.mktemp("killed"))


def test_there_are_as_many_files_as_prompts(killed: Killed) -> None:
    assert len(killed.videos) == COUNT == 8


def test_nothing_else_is_left_in_the_folder(killed: Killed) -> None:
    assert {path.name for path in killed.out.iterdir()} - {video.name for video in killed.videos} == {".hunyuan-local"}


def test_no_item_was_made_twice(killed: Killed) -> None:
    jobs = DataFolder(killed.out / ".hunyuan-local").store().find(limit=1000)
    made = Counter(job.origin["key"] for job in jobs if job.status == "succeeded")
    assert (len(jobs), len(made), set(made.values())) == (COUNT, COUNT, {1})


def test_no_file_was_finished_twice(killed: Killed) -> None:
    log = "".join(path.read_text() for path in (killed.out / ".hunyuan-local" / "logs").glob("*.log"))
    finished = Counter(line.split("job ")[1][:36] for line in log.splitlines() if ": done in" in line)
    assert set(finished.values()) == {1}


def test_the_last_run_made_only_what_was_missing(killed: Killed) -> None:
    assert killed.summary["made"] <= COUNT - 3 and killed.summary["done"] == COUNT


def test_the_frames_are_those_of_an_undisturbed_run(killed: Killed, tiny: LocalBackend, tmp_path: Path) -> None:
    expected = {}
    for request in REQUESTS:
        result = tiny.generate(request, GenerationContext(tmp_path / f"{request.seed}.mp4"))
        expected[request.seed] = result.provenance["frames_sha256"]
    found = {said.request.seed: said.frames_sha256 for said in map(read_provenance, killed.videos)}
    assert found == expected
