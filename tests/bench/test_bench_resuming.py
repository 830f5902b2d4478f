"""Resuming benches that were stopped or partly failed."""

from __future__ import annotations

from typing import Any

import pytest
from hosted_benches import Begin, Started, scenario_file, states
from standin import StandIn

from hunyuan_local.bench.results.result import load_result
from hunyuan_local.bench.run.plan import PlannedRun
from hunyuan_local.bench.run.runner import EARLIER
from hunyuan_local.errors import GenerationCancelledError


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


def test_a_failed_row_stays_while_the_new_try_is_not_over(begin_unmade: Begin, service: StandIn) -> None:
    service.inject("task-failed")
    begin_unmade(scenario_file(repeats=1)).run()
    again = begin_unmade(scenario_file(repeats=1), retry_failed=True)
    stop_in_mid_run(again, service)
    assert states(load_result(again.path).runs) == ["failed"]


def stop_in_mid_run(started: Started, service: StandIn) -> None:
    """Run, and interrupt it like Ctrl-C while it waits for a task."""
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


def test_an_interrupted_run_has_no_row(begin_unmade: Begin, service: StandIn) -> None:
    started = begin_unmade()
    stop_in_mid_run(started, service)
    assert load_result(started.path).runs == []
    assert service.deleted == []


def test_its_task_is_continued_and_not_paid_for_again(begin: Begin, service: StandIn) -> None:
    stop_in_mid_run(begin(billed=True), service)
    again = begin(billed=True)
    (bill,) = again.bills
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
        counts.append(len(load_result(started.path).runs))

    started.bench.run(on_begin, lambda number, row: None)
    assert counts == [0, 1]
