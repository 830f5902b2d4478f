"""The delay until polling notices the end of a task, if the service reports its run time."""

from __future__ import annotations

from pathlib import Path

import pytest
from hosted_benches import Begin, Started, scenario_file
from hosted_settings import QUICK
from standin import StandIn, sample_video

from hunyuan_local.backends.hosted.novita import NovitaBackend
from hunyuan_local.backends.hosted.open_tasks import OpenTasks
from hunyuan_local.backends.hosted.wavespeed import WaveSpeedBackend


def say_running(monkeypatch: pytest.MonkeyPatch, inference_s: float) -> None:
    """Make the stand-in report this run time."""
    read, reported = WaveSpeedBackend.wire.job_from_wire, {"inference_s": inference_s}
    monkeypatch.setattr(WaveSpeedBackend.wire, "job_from_wire", lambda body: read(body).model_copy(update=reported))


@pytest.mark.usefixtures("starts_process")
def test_polling_is_the_time_since_the_look_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    say_running(monkeypatch, 0.001)
    with StandIn(sample_video(64, 48, 2), polls_until_done=2) as service:
        open_tasks = OpenTasks(tmp_path / "state")
        backend = WaveSpeedBackend(service.key, service.url, pacing=QUICK, open_tasks=open_tasks)
        (row,) = Started(tmp_path / "bench", scenario_file(repeats=1), [backend], open_tasks).run()
        backend.close()
        between = service.polls[-1] - service.polls[-2]
    assert 0 < row.stages.poll_s <= between + 0.05
    assert row.stages.run_s == 0.001


def test_no_wait_is_reported_as_0(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    say_running(monkeypatch, 1000.0)
    assert {row.stages.poll_s for row in begin().run()} == {0.0}


def test_polling_is_not_reported_where_the_service_does_not_say_how_long_it_ran(begin: Begin) -> None:
    assert {row.stages.poll_s for row in begin(None, NovitaBackend).run()} == {None}
