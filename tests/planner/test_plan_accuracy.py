"""The planner compared with published numbers; benchmarks/plan_accuracy.py has the table."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from plan_accuracy import LATENCIES, ROWS, SHARED, TOLERANCE, Latency, Row, Shared, main  # noqa: E402


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.source} {row.name}")
def test_published_peaks_are_met_within_a_tenth(row: Row) -> None:
    assert abs(row.error) <= TOLERANCE


@pytest.mark.parametrize("row", LATENCIES, ids=lambda row: row.name)
def test_published_times_are_met_within_a_fifth(row: Latency) -> None:
    assert row.predicted() == pytest.approx(row.seconds, rel=0.2)


@pytest.mark.parametrize("row", SHARED, ids=lambda row: row.name)
def test_published_times_on_several_cards_are_met_within_a_fifth(row: Shared) -> None:
    assert row.predicted() == pytest.approx(row.seconds, rel=0.2)


def test_the_table_shows_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    printed = capsys.readouterr().out
    assert [row.name for row in (*ROWS, *LATENCIES, *SHARED) if row.name not in printed] == []
