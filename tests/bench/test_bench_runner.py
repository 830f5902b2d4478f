"""Runs made one after another at a stand-in of the services: rows, failures, spending, and benches that go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hosted_settings import QUICK
from standin import StandIn, sample_video

from hunyuan_local.backends.hosted import HostedBackend
from hunyuan_local.backends.ledger import Ledger
from hunyuan_local.backends.novita import NovitaBackend
from hunyuan_local.backends.wavespeed import WaveSpeedBackend
from hunyuan_local.bench.billing import make_bills, set_budgets
from hunyuan_local.bench.makers import HostedMaker
from hunyuan_local.bench.outcome import Outcome
from hunyuan_local.bench.plan import PlannedRun
from hunyuan_local.bench.result import BenchResult, BenchRun, Target, load_result
from hunyuan_local.bench.runner import EARLIER, Bench
from hunyuan_local.bench.scenarios import ScenarioFile
from hunyuan_local.bench.targets import hosted_target
from hunyuan_local.errors import ConfigError, GenerationCancelledError

Begin = Callable[..., "Started"]


def scenario_file(**changes: Any) -> ScenarioFile:
    """One request that both services hold, made twice."""
    scenario = {"name": "a", "prompts": ["a fox"], "sizes": ["1280x720"], "num_inference_steps": [4], "seeds": [7]}
    scenario |= changes.pop("scenario", {})
    return ScenarioFile.model_validate({"name": "test", "repeats": 2, "scenarios": [scenario]} | changes)


class Started:
    """A bench in a folder, with what it is made of; the same folder again is the same bench gone on with."""

    def __init__(self, folder: Path, file: ScenarioFile, backends: list[HostedBackend], ledger: Ledger, **options: Any):
        self.path = folder / "result.json"
        targets = [hosted_target(backend) for backend in backends]
        if options.pop("billed", False):  # the stand-in in the service's place
            targets = [target.model_copy(update={"is_billed": True}) for target in targets]
        result = load_result(self.path) if self.path.exists() else BenchResult(
            name=file.name, created_at="2026-01-01T00:00:00+00:00", machine={}, scenarios=file.content,
            repeats=file.repeats, targets=targets,
        )  # fmt: skip
        result.repeats = file.repeats
        told = {"allow_loss": file.allow_loss, "ledger": ledger}
        self.makers = [
            HostedMaker(target, backend, folder / "videos", result.created_at, **told)
            for target, backend in zip(targets, backends, strict=True)
        ]
        self.max_cost_usd, self._spent = options.pop("max_cost_usd", None), folder / "spent.json"
        self.bench = Bench(file, result, self.makers, folder, **options)

    def run(self) -> list[BenchRun]:
        """Make what is left; the rows of the file."""
        set_budgets(self.makers, self.max_cost_usd, self._spent)
        self.bench.run(lambda number, run: None, lambda number, row: None)
        return load_result(self.path).runs


@pytest.fixture
def service() -> Iterator[StandIn]:
    """A stand-in whose tasks are done at the first look."""
    with StandIn(sample_video(), polls_until_done=0) as service:
        yield service


@pytest.fixture
def begin(tmp_path: Path, service: StandIn) -> Begin:
    """Begins a bench at the stand-in, or goes on with it."""

    def begin(file: ScenarioFile | None = None, *kinds: type[HostedBackend], key: str = "", **options: Any) -> Started:
        ledger = Ledger(tmp_path / "state")
        backends = [
            kind(key or service.key, service.url, pacing=QUICK, ledger=ledger) for kind in kinds or [WaveSpeedBackend]
        ]
        return Started(tmp_path / "bench", file or scenario_file(), backends, ledger, **options)

    return begin


def states(rows: list[BenchRun]) -> list[str]:
    """What became of each."""
    return [row.status for row in rows]


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
    assert (row.made.seed, row.video.width, row.peak_memory_bytes, row.cost_usd) == (7, 1280, None, None)
    assert "not the service's own" in row.cost_source


def test_both_services_get_the_same_requests_in_turns(begin: Begin, service: StandIn) -> None:
    rows = begin(None, WaveSpeedBackend, NovitaBackend).run()
    assert states(rows) == ["succeeded"] * 4
    assert [submission.service for submission in service.submissions] == ["wavespeed", "novita", "novita", "wavespeed"]
    assert {submission.body["seed"] for submission in service.submissions} == {7}


def test_each_run_has_a_video_of_its_own(begin: Begin, tmp_path: Path) -> None:
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


def test_a_failed_task_is_a_row_and_the_others_go_on(begin: Begin, service: StandIn) -> None:
    service.inject("task-failed")
    rows = begin().run()
    assert states(rows) == ["failed", "succeeded"]
    assert rows[0].error_kind == "TaskFailedError" and "could not finish task" in rows[0].error
    assert rows[0].stages.total_s is not None and rows[0].made is None and rows[0].cost_usd is None


def test_a_request_that_cannot_be_held_is_refused_in_each_repeat_and_never_sent(begin: Begin, service: StandIn) -> None:
    rows = begin(scenario_file(scenario={"num_frames": [85]})).run()
    assert [(row.status, row.error_kind) for row in rows] == [("failed", "RequestLossError")] * 2
    assert "not tried again: it was refused before" in rows[1].notes
    assert service.requests == []


def test_a_wrong_key_ends_that_target_alone(begin: Begin, service: StandIn) -> None:
    started = begin(None, WaveSpeedBackend, NovitaBackend)
    started.makers[0]._backend._api_key = "another"
    rows = started.run()
    assert [row.status for row in rows if row.backend.startswith("novita")] == ["succeeded"] * 2
    first, second = (row for row in rows if row.backend.startswith("wavespeed"))
    assert (first.error_kind, second.error_kind) == ("AuthenticationError",) * 2
    assert second.error.startswith("not begun, since an earlier run ended this backend: ")
    assert len([path for _, path, _ in service.requests if "wavespeed" in path]) == 1


def test_an_error_that_nobody_foresaw_is_a_row(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise ZeroDivisionError("never thought of")

    monkeypatch.setattr(WaveSpeedBackend, "generate", fail)
    rows = begin().run()
    assert [(row.error_kind, row.error) for row in rows] == [("ZeroDivisionError", "never thought of")] * 2


# ---- spending --------------------------------------------------------------------------------------------------------


def test_no_more_is_spent_than_allowed_and_the_rest_are_rows_that_say_so(begin: Begin, service: StandIn) -> None:
    rows = begin(scenario_file(repeats=4), billed=True, max_cost_usd=0.8).run()
    assert states(rows) == ["succeeded", "succeeded", "failed", "failed"]
    assert [row.error_kind for row in rows[2:]] == ["SpendingLimitError"] * 2
    assert "give a higher --max-cost" in rows[3].error
    assert len(service.submissions) == 2
    assert rows[0].cost_usd == 0.40


def test_what_was_spent_before_counts(begin: Begin, service: StandIn) -> None:
    begin(scenario_file(repeats=4), billed=True, max_cost_usd=0.8).run()
    begin(scenario_file(repeats=4), billed=True, max_cost_usd=1.2, retry_failed=True).run()
    assert len(service.submissions) == 3


def test_a_limit_is_refused_where_a_price_is_not_known(begin: Begin) -> None:
    with pytest.raises(ConfigError, match=r"not known of novita"):
        begin(None, WaveSpeedBackend, NovitaBackend, billed=True, max_cost_usd=5).run()


def test_a_limit_is_refused_where_nothing_is_billed(begin: Begin) -> None:
    with pytest.raises(ConfigError, match="no backend of this bench is billed"):
        begin(max_cost_usd=5).run()


def test_the_bill_counts_what_will_be_sent(begin: Begin) -> None:
    started = begin(scenario_file(repeats=3, scenario={"sizes": ["1280x720", "64x64"]}), billed=True)
    (bill,) = make_bills(started.bench.todo, started.makers)
    assert (bill.tasks, bill.price_usd, bill.open_tasks) == (3, 0.40, 0)
    assert "3 videos at 0.40 US dollars each, 1.20 in all" in bill.sentence


def test_a_price_that_is_not_known_is_said_in_the_bill(begin: Begin) -> None:
    started = begin(None, NovitaBackend, billed=True)
    (bill,) = make_bills(started.bench.todo, started.makers)
    assert "2 videos at a price that is not known here" in bill.sentence


def test_there_is_no_bill_for_a_server_of_ones_own(begin: Begin) -> None:
    started = begin()
    assert make_bills(started.bench.todo, started.makers) == []


# ---- going on --------------------------------------------------------------------------------------------------------


def test_rows_that_are_there_are_not_made_again(begin: Begin, service: StandIn) -> None:
    begin().run()
    assert begin().bench.todo == []
    begin(scenario_file(repeats=3)).run()
    assert len(service.submissions) == 3


def test_a_failed_row_is_replaced_only_when_asked_to_and_its_error_stays(begin: Begin, service: StandIn) -> None:
    service.inject("task-failed", 2)
    begin(scenario_file(repeats=1)).run()
    assert begin(scenario_file(repeats=1)).bench.todo == []
    begin(scenario_file(repeats=1), retry_failed=True).run()
    (row,) = begin(scenario_file(repeats=1), retry_failed=True).run()
    assert row.status == "succeeded"
    earlier = [note for note in row.notes if note.startswith(f"{EARLIER}TaskFailedError: ")]
    assert len(earlier) == 2


def test_a_failed_row_stays_while_the_new_try_is_not_over(begin: Begin, service: StandIn) -> None:
    service.inject("task-failed")
    begin(scenario_file(repeats=1)).run()
    again = begin(scenario_file(repeats=1), retry_failed=True)
    stop_in_mid_run(again, service)
    assert states(load_result(again.path).runs) == ["failed"]


def stop_in_mid_run(started: Started, service: StandIn) -> None:
    """Run, and be interrupted, as Ctrl-C does, once a task is waited for."""
    service._polls_until_done = 10**6
    before = len(service.polls)
    backend = started.makers[0]._backend
    look = backend.ask

    def ask(*arguments: Any) -> Any:
        if len(service.polls) > before:
            raise KeyboardInterrupt
        return look(*arguments)

    backend.ask = ask
    with pytest.raises(GenerationCancelledError):
        started.run()
    service._polls_until_done = 0


def test_an_interrupted_run_has_no_row(begin: Begin, service: StandIn) -> None:
    started = begin()
    stop_in_mid_run(started, service)
    assert not started.path.exists() or load_result(started.path).runs == []
    assert service.deleted == []


def test_its_task_is_continued_and_not_paid_for_again(begin: Begin, service: StandIn) -> None:
    stop_in_mid_run(begin(billed=True), service)
    again = begin(billed=True)
    (bill,) = make_bills(again.bench.todo, again.makers)
    assert (bill.tasks, bill.open_tasks) == (1, 1)
    rows = again.run()
    assert states(rows) == ["interrupted", "succeeded"]
    assert len(service.submissions) == 2
    assert rows[0].video is not None and rows[0].stages.total_s is None and rows[0].seconds_per_step is None


def test_a_video_whose_row_was_not_written_any_more_is_not_paid_for_again(begin: Begin, service: StandIn) -> None:
    started = begin(scenario_file(repeats=1))
    (run,) = started.bench.todo
    started.makers[0].make(run)
    rows = begin(scenario_file(repeats=1)).run()
    assert states(rows) == ["interrupted"] and len(service.submissions) == 1


def test_a_video_of_an_earlier_bench_in_the_folder_is_none_of_this_one(begin: Begin, service: StandIn) -> None:
    begin(scenario_file(repeats=1)).run()
    started = begin(scenario_file(repeats=1))
    started.path.unlink()
    again = begin(scenario_file(repeats=1))
    again.makers[0]._began_at = "2100-01-01T00:00:00+00:00"
    assert states(again.run()) == ["succeeded"] and len(service.submissions) == 2


def test_it_is_complete_when_every_measured_run_has_a_row(begin: Begin, service: StandIn) -> None:
    service.inject("task-failed")
    started = begin()
    seen: list[bool] = []
    started.bench.run(lambda number, run: None, lambda number, row: seen.append(load_result(started.path).is_complete))
    assert seen == [False, True]
    assert load_result(started.path).finished_at is not None


def test_every_row_is_on_disk_before_the_next_run_begins(begin: Begin) -> None:
    started = begin()
    counts: list[int] = []

    def on_begin(number: int, run: PlannedRun) -> None:
        counts.append(len(load_result(started.path).runs) if started.path.exists() else 0)

    started.bench.run(on_begin, lambda number, row: None)
    assert counts == [0, 1]


# ---- the longest that a finished task can have waited to be seen -----------------------------------------------------


def test_polling_is_the_time_since_the_look_before_where_the_service_says_how_long_it_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = WaveSpeedBackend.wire.job_from_wire
    told = {"inference_s": 0.05}
    monkeypatch.setattr(WaveSpeedBackend.wire, "job_from_wire", lambda body: read(body).model_copy(update=told))
    with StandIn(sample_video(), polls_until_done=2) as service:
        ledger = Ledger(tmp_path / "state")
        backend = WaveSpeedBackend(service.key, service.url, pacing=QUICK, ledger=ledger)
        (row,) = Started(tmp_path / "bench", scenario_file(repeats=1), [backend], ledger).run()
        between = service.polls[-1] - service.polls[-2]
    assert 0 < row.stages.poll_s <= between + 0.05
    assert row.stages.run_s == 0.05


def test_polling_is_not_told_where_the_service_does_not(begin: Begin) -> None:
    assert {row.stages.poll_s for row in begin(None, NovitaBackend).run()} == {None}


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
