"""Ctrl-C while a bench waits for a service, and the same command again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import run_here
from made_results import CARD
from standin import StandIn, sample_video

from hunyuan_local.bench.report import plots
from hunyuan_local.bench.results.result import load_result
from hunyuan_local.bench.run import session

SCENARIO = {"name": "a", "prompts": ["a fox"], "sizes": ["1280x720"], "num_inference_steps": [4], "seeds": [7]}


class Interrupted:
    """A bench at two stand-ins, interrupted with Ctrl-C while it waited for its second task, then resumed."""

    def __init__(self, folder: Path):
        (folder / "whole.yaml").write_text(json.dumps({"name": "whole", "repeats": 1, "scenarios": [SCENARIO]}))
        self._folder = folder
        with (
            StandIn(sample_video(64, 48, 2), polls_until_done=0) as quick,
            StandIn(sample_video(64, 48, 2), polls_until_done=0, task_s=3600) as slow,
        ):
            urls = [f"--backend=wavespeed={quick.url}", f"--backend=novita={slow.url}"]
            watcher = threading.Thread(target=self._interrupt, args=(slow,))
            watcher.start()
            self.first = self._run(quick.key, urls)
            watcher.join()
            self.rows = load_result(folder / "out" / "result.json").runs
            self.report = (folder / "out" / "report.md").read_text()
            slow.finish_tasks()
            self.again = self._run(quick.key, urls)
            self.submissions = len(quick.submissions) + len(slow.submissions)
        self.result = load_result(folder / "out" / "result.json")

    def _run(self, key: str, urls: list[str]) -> subprocess.CompletedProcess[str]:
        variables = {"WAVESPEED_API_KEY": key, "NOVITA_API_KEY": key, "HUNYUAN_LOCAL_STATE_DIR": "state"}
        command = ["bench", "--scenarios", "whole.yaml", "--output-dir", "out", *urls]
        return run_here(*command, cwd=self._folder, **variables)

    @staticmethod
    def _interrupt(slow: StandIn) -> None:
        deadline = time.monotonic() + 200
        while not slow.polls and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def interrupted(starts_process: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interrupted]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores Ctrl-C
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(session, "_describe", lambda process: dict(CARD))
            patch.setattr(plots, "make_plots", lambda result, folder: {})
            yield Interrupted(tmp_path_factory.mktemp("interrupted"))
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_keeps_what_is_done_and_says_how_to_continue(interrupted: Interrupted) -> None:
    first = interrupted.first
    assert first.returncode == 130, first.stderr
    assert json.loads(first.stdout.splitlines()[-1])["is_complete"] is False
    assert "the same command with --output-dir out resumes the bench" in first.stderr.splitlines()[-1]
    assert len(interrupted.rows) == 1 and interrupted.report


def test_the_same_command_continues_the_open_task_without_a_new_one(interrupted: Interrupted) -> None:
    assert interrupted.again.returncode == 0, interrupted.again.stderr
    assert interrupted.submissions == 2
    assert sorted(row.status for row in interrupted.result.runs if row.repeat == 0) == ["interrupted", "succeeded"]
