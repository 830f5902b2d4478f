"""Status reports of workers."""

from __future__ import annotations

from pathlib import Path

import pytest
from manual_clock import ManualClock

from hunyuan_local.jobs.database import Database
from hunyuan_local.jobs.worker_reports import WorkerReport, WorkerReports

REPORT = WorkerReport(name="w", pid=7, model="tiny", device="cpu", state="idle")


@pytest.fixture
def worker_reports(tmp_path: Path, clock: ManualClock) -> WorkerReports:
    return WorkerReports(Database(tmp_path / "jobs.sqlite", clock))


def test_a_report_is_seen(worker_reports: WorkerReports) -> None:
    worker_reports.report(REPORT)
    assert worker_reports.recent() == [REPORT.model_copy(update={"seen_at": 1000.0})]


def test_a_later_report_replaces_it(worker_reports: WorkerReports) -> None:
    worker_reports.report(REPORT)
    worker_reports.report(REPORT.model_copy(update={"state": "working"}))
    assert [report.state for report in worker_reports.recent()] == ["working"]


def test_who_was_not_seen_for_long_is_left_out(worker_reports: WorkerReports, clock: ManualClock) -> None:
    worker_reports.report(REPORT)
    clock.now += 13
    assert worker_reports.recent() == []


def test_who_left_is_left_out(worker_reports: WorkerReports) -> None:
    worker_reports.report(REPORT)
    worker_reports.leave("w")
    assert worker_reports.recent() == []
