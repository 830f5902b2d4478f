"""Runs executed one after another at the stand-in for the services: rows and failures."""

from __future__ import annotations

from pathlib import Path

import pytest
from hosted_benches import Begin, scenario_file, states
from standin import StandIn

from hunyuan_local.backends.hosted.novita import NovitaBackend
from hunyuan_local.backends.hosted.wavespeed import WaveSpeedBackend
from hunyuan_local.bench.results.result import Target, load_result
from hunyuan_local.bench.run.outcome import Outcome
from hunyuan_local.bench.run.plan import PlannedRun
from hunyuan_local.bench.run.runner import Bench

# ---- rows ------------------------------------------------------------------------------------------------------------


def test_a_hosted_run_has_the_stages_of_a_service(begin: Begin) -> None:
    row = begin().run()[0]
    stages = row.stages
    assert None not in (stages.submit_s, stages.queue_s, stages.run_s, stages.download_s, stages.write_s)
    assert (stages.load_s, stages.encode_s, stages.denoise_s, stages.decode_s) == (None,) * 4
    assert stages.total_s >= stages.submit_s + stages.queue_s + stages.run_s + stages.download_s


def test_seconds_a_step_are_its_running_over_the_steps_that_were_asked_for(begin: Begin) -> None:
    row = begin().run()[0]
    assert row.seconds_per_step == pytest.approx(row.stages.run_s / 4)


def test_a_row_says_what_was_made(begin: Begin) -> None:
    row = begin().run()[0]
    assert (row.made.seed, row.video.width, row.peak_memory_bytes, row.cost_usd) == (7, 64, None, None)
    assert "this URL is not the service's" in row.cost_source


def test_both_services_get_the_same_requests_in_turns(begin: Begin, service: StandIn) -> None:
    rows = begin(None, WaveSpeedBackend, NovitaBackend).run()
    assert states(rows) == ["succeeded"] * 4
    assert [submission.service for submission in service.submissions] == ["wavespeed", "novita", "novita", "wavespeed"]
    assert {submission.body["seed"] for submission in service.submissions} == {7}


def test_each_run_has_a_separate_video(begin: Begin, tmp_path: Path) -> None:
    begin().run()
    assert len(list((tmp_path / "bench" / "videos").rglob("*.mp4"))) == 2


def test_videos_that_are_not_kept_are_deleted(begin: Begin, tmp_path: Path) -> None:
    assert states(begin(keep_videos=False).run()) == ["succeeded"] * 2
    assert list((tmp_path / "bench" / "videos").rglob("*.mp4")) == []


def test_what_was_lost_with_permission_is_in_the_row(begin: Begin) -> None:
    (row,) = begin(scenario_file(repeats=1, allow_loss=True, scenario={"fps": 24})).run()
    assert [loss.split(" was ")[0] for loss in row.losses] == ["fps=24"]
    assert not [note for note in row.notes if "fps" in note]


# ---- failures --------------------------------------------------------------------------------------------------------


def test_a_failed_task_is_a_row_and_the_others_continue(begin: Begin, service: StandIn) -> None:
    service.inject("task-failed")
    rows = begin().run()
    assert states(rows) == ["failed", "succeeded"]
    assert rows[0].error_kind == "TaskFailedError" and "could not finish task" in rows[0].error
    assert rows[0].stages.total_s is not None and rows[0].made is None and rows[0].cost_usd is None


def test_a_request_that_cannot_be_held_is_refused_in_each_repeat_and_never_sent(
    begin_unmade: Begin, service: StandIn
) -> None:
    rows = begin_unmade(scenario_file(scenario={"num_frames": [85]})).run()
    assert [(row.status, row.error_kind) for row in rows] == [("failed", "RequestLossError")] * 2
    assert "not tried again: the same request was refused before" in rows[1].notes
    assert service.requests == []


def test_a_wrong_key_ends_that_target_alone(begin: Begin, service: StandIn) -> None:
    started = begin(None, WaveSpeedBackend, NovitaBackend)
    started.makers[0]._backend._api_key = "another"
    rows = started.run()
    assert [row.status for row in rows if row.backend.startswith("novita")] == ["succeeded"] * 2
    first, second = (row for row in rows if row.backend.startswith("wavespeed"))
    assert (first.error_kind, second.error_kind) == ("AuthenticationError",) * 2
    assert second.error.startswith("not started, because an earlier run ended this backend: ")
    assert len([path for _, path, _ in service.requests if "wavespeed" in path]) == 1


def test_an_unexpected_error_is_a_row(begin_unmade: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise ZeroDivisionError("never thought of")

    monkeypatch.setattr(WaveSpeedBackend, "generate", fail)
    rows = begin_unmade().run()
    assert [(row.error_kind, row.error) for row in rows] == [("ZeroDivisionError", "never thought of")] * 2


# ---- devices ---------------------------------------------------------------------------------------------------------


class _Here:
    """A maker whose device is known after its first run."""

    def __init__(self, target: Target, made: Outcome):
        self.target, self.limits, self._made = target, WaveSpeedBackend.wire.CAPABILITIES, made

    def make(self, run: PlannedRun) -> Outcome:
        return self._made

    def close(self) -> None: ...


def test_the_device_is_written_down_with_the_first_run_that_knows_it(begin: Begin, tmp_path: Path) -> None:
    started = begin(scenario_file(repeats=1))
    (run,) = started.bench.todo
    result = started.makers[0].make(run).result
    maker = _Here(started.makers[0].target, Outcome(result, total_s=1.0, device="a card"))
    bench = Bench(scenario_file(repeats=1), started.bench.result, [maker], tmp_path)
    bench.run(lambda number, run: None, lambda number, row: None)
    assert load_result(tmp_path / "result.json").targets[0].device == "a card"
