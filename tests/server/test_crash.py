"""Servers and workers killed at random moments: ``benchmarks/server_crash.py`` with few kills."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from server_crash import Outcome, run

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def outcome(starts_process: None, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run(tmp_path_factory.mktemp("crash"), kills=2, jobs=4, seed=3, steps=(10, 40), pause_s=1)


def test_no_job_whose_id_was_reported_is_lost(outcome: Outcome) -> None:
    assert outcome.jobs_lost == 0


def test_no_job_is_done_twice(outcome: Outcome) -> None:
    assert outcome.done_twice == 0


def test_the_frames_are_those_of_an_undisturbed_run(outcome: Outcome) -> None:
    assert outcome.frames_differ == 0


def test_jobs_whose_answer_was_lost_are_done_as_well(outcome: Outcome) -> None:
    assert outcome.jobs_done == outcome.jobs_told + outcome.jobs_untold


def test_servers_and_workers_were_killed(outcome: Outcome) -> None:
    assert min(outcome.kills_of_servers, outcome.kills_of_workers) > 0
