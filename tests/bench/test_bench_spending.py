"""Spending of a bench at services: the bill shown before it starts, and the limit."""

from __future__ import annotations

import pytest
from hosted_benches import Begin, scenario_file, states
from standin import StandIn

from hunyuan_local.backends.hosted.novita import NovitaBackend
from hunyuan_local.backends.hosted.wavespeed import WaveSpeedBackend
from hunyuan_local.errors import ConfigError


def test_no_more_is_spent_than_allowed_and_the_rest_are_rows_that_say_so(begin: Begin, service: StandIn) -> None:
    rows = begin(scenario_file(repeats=4), billed=True, max_cost_usd=0.8).run()
    assert states(rows) == ["succeeded", "succeeded", "failed", "failed"]
    assert [row.error_kind for row in rows[2:]] == ["SpendingLimitError"] * 2
    assert "raise --max-cost" in rows[3].error
    assert len(service.submissions) == 2
    assert rows[0].cost_usd == 0.40


def test_what_was_spent_before_counts(begin: Begin, service: StandIn) -> None:
    begin(scenario_file(repeats=4), billed=True, max_cost_usd=0.8).run()
    begin(scenario_file(repeats=4), billed=True, max_cost_usd=1.2, retry_failed=True).run()
    assert len(service.submissions) == 3


def test_a_limit_is_refused_where_a_price_is_not_known(begin_unmade: Begin) -> None:
    with pytest.raises(ConfigError, match=r"unknown for novita"):
        begin_unmade(None, WaveSpeedBackend, NovitaBackend, billed=True, max_cost_usd=5)


def test_a_limit_is_refused_where_nothing_is_billed(begin_unmade: Begin) -> None:
    with pytest.raises(ConfigError, match="no backend of this bench is billed"):
        begin_unmade(max_cost_usd=5)


def test_the_bill_counts_what_will_be_sent(begin_unmade: Begin) -> None:
    started = begin_unmade(scenario_file(repeats=3, scenario={"sizes": ["1280x720", "64x64"]}), billed=True)
    (bill,) = started.bills
    assert (bill.tasks, bill.price_usd, bill.open_tasks) == (3, 0.40, 0)
    assert "3 videos at 0.40 US dollars each, 1.20 in total" in bill.sentence


def test_a_price_that_is_not_known_is_reported_in_the_bill(begin_unmade: Begin) -> None:
    started = begin_unmade(None, NovitaBackend, billed=True)
    (bill,) = started.bills
    assert "2 videos at an unknown price" in bill.sentence


def test_there_is_no_bill_for_a_self_hosted_server(begin_unmade: Begin) -> None:
    started = begin_unmade()
    assert started.bills == []
