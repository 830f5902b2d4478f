"""The cost of a local video and of a video at a service."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from hunyuan_local.bench.run.costs import Costs, hosted_cost, local_cost
from hunyuan_local.wires.novita import CAPABILITIES as NOVITA
from hunyuan_local.wires.wavespeed import CAPABILITIES as WAVESPEED

CARD = {"card_usd": 28000, "card_lifetime_hours": 20000}
ELECTRICITY = {"electricity_usd_per_kwh": 0.25, "power_w": 800}


@pytest.mark.parametrize(
    ("prices", "usd"),
    [
        ({"usd_per_hour": 3.6}, 0.1),
        (ELECTRICITY, 0.2 / 36),
        (CARD, 1.4 / 36),
        (CARD | ELECTRICITY, 1.6 / 36),
    ],
)
def test_a_local_video_costs_the_time_that_it_took(prices: dict[str, float], usd: float) -> None:
    assert local_cost(Costs(**prices), 100)[0] == pytest.approx(usd)


def test_where_the_prices_are_from_is_reported() -> None:
    source = local_cost(Costs(**CARD, **ELECTRICITY, source="the bill of May"), 1)[1]
    assert "800 W at 0.25" in source and "28000 US dollars over 20000 hours" in source and "the bill of May" in source


@pytest.mark.parametrize("costs", [None, Costs(source="a guess")])
def test_without_prices_the_cost_is_not_known(costs: Costs | None) -> None:
    assert local_cost(costs, 100) == (None, "unknown: the scenario file has no costs")


@pytest.mark.parametrize(
    ("prices", "words"),
    [
        ({"usd_per_hour": 1} | CARD, "whole price"),
        ({"power_w": 300}, "electricity_usd_per_kwh and power_w belong together"),
        ({"card_usd": 300}, "card_usd and card_lifetime_hours belong together"),
        ({"usd_per_hour": float("nan")}, "finite"),
        ({"usd_per_hour": -1}, "greater than or equal to 0"),
    ],
)
def test_prices_that_say_too_little_or_too_much_are_refused(prices: dict[str, float], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Costs(**prices)


def test_a_video_at_the_service_costs_its_price() -> None:
    assert hosted_cost(WAVESPEED, is_billed=True)[0] == WAVESPEED.price_usd


def test_the_price_of_a_service_does_not_apply_to_a_self_hosted_server() -> None:
    assert hosted_cost(WAVESPEED, is_billed=False)[0] is None


def test_a_price_that_is_not_known_is_reported() -> None:
    usd, source = hosted_cost(NOVITA, is_billed=True)
    assert usd is None and "no price of a video is known" in source
