"""The record of spending at hosted services."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hunyuan_local.backends.hosted.spending import Budget
from hunyuan_local.errors import ConfigError, SpendingLimitError


def test_as_many_as_the_limit_pays_for_may_be_submitted(tmp_path: Path) -> None:
    budget = Budget(tmp_path / "spent.json", 0.1, 0.3)
    for _ in range(3):
        budget.reserve()
    with pytest.raises(SpendingLimitError, match=r"max_cost=0\.3: 3 videos were submitted for 0\.30 US dollars"):
        budget.reserve()


def test_the_next_run_remembers(tmp_path: Path) -> None:
    Budget(tmp_path / "spent.json", 0.1, 0.1).reserve()
    with pytest.raises(SpendingLimitError):
        Budget(tmp_path / "spent.json", 0.1, 0.1).reserve()


def test_what_the_service_refused_is_not_counted(tmp_path: Path) -> None:
    budget = Budget(tmp_path / "spent.json", 0.1, 0.1)
    budget.reserve()
    budget.give_back()
    budget.reserve()
    assert budget.spent_usd == pytest.approx(0.1)


def test_without_a_limit_all_is_counted_and_nothing_refused(tmp_path: Path) -> None:
    budget = Budget(tmp_path / "spent.json", None, None)
    budget.reserve()
    assert (budget.submissions, budget.spent_usd) == (1, None)


@pytest.mark.parametrize(
    ("price", "limit", "words"), [(None, 5.0, "price of a video is not known"), (0.1, 0.0, "above 0")]
)
def test_a_limit_that_cannot_be_kept_is_refused(price: float | None, limit: float, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        Budget(tmp_path / "spent.json", price, limit)


def test_a_damaged_account_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "spent.json").write_text("{")
    with pytest.raises(ConfigError, match="damaged"):
        Budget(tmp_path / "spent.json", 0.1, 1.0)


def test_the_account_on_disk_is_replaced_as_a_whole(tmp_path: Path) -> None:
    budget = Budget(tmp_path / "spent.json", 0.1, None)
    budget.reserve()
    with (tmp_path / "spent.json").open() as before:
        budget.reserve()
        assert json.loads(before.read())["submissions"] == 1


def test_services_with_different_prices_share_an_account(tmp_path: Path) -> None:
    cheap, dear = (Budget(tmp_path / "spent.json", price, 1.0) for price in (0.1, 0.6))
    dear.reserve()
    cheap.reserve()
    with pytest.raises(SpendingLimitError, match=r"2 videos were submitted for 0\.70 .* bring the total to 1\.30"):
        dear.reserve()
    cheap.reserve()
    assert dear.spent_usd == pytest.approx(0.8)
