"""What workers say of themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from manual_clock import ManualClock

from hunyuan_local.jobs.database import Database
from hunyuan_local.jobs.roster import Roster, WorkerReport

REPORT = WorkerReport(name="w", pid=7, model="tiny", device="cpu", state="idle")


@pytest.fixture
def roster(tmp_path: Path, clock: ManualClock) -> Roster:
    return Roster(Database(tmp_path / "jobs.sqlite", clock))


def test_a_report_is_seen(roster: Roster) -> None:
    roster.report(REPORT)
    assert roster.list() == [REPORT.model_copy(update={"seen_at": 1000.0})]


def test_a_later_report_replaces_it(roster: Roster) -> None:
    roster.report(REPORT)
    roster.report(REPORT.model_copy(update={"state": "working"}))
    assert [report.state for report in roster.list()] == ["working"]


def test_who_was_not_seen_for_long_is_left_out(roster: Roster, clock: ManualClock) -> None:
    roster.report(REPORT)
    clock.now += 13
    assert roster.list() == []


def test_who_left_is_left_out(roster: Roster) -> None:
    roster.report(REPORT)
    roster.leave("w")
    assert roster.list() == []
