"""Durations in readable form."""

from __future__ import annotations

import pytest

from hunyuan_local.durations import clock, in_words, span


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (4.25, "4.2 s"), (9.96, "0:10"), (1129.4, "18:49"), (12000, "3:20:00")]
)
def test_on_a_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.84, "0.8 s"), (9.96, "10 s"), (42.2, "42 s"), (59.6, "1 min"), (190, "3 min 10 s"), (1140, "19 min"),
        (4560, "1 h 16 min"),
    ],
)  # fmt: skip
def test_in_words(seconds: float, text: str) -> None:
    assert in_words(seconds) == text


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (4.2, 7.4, "4-7 s"),
        (50, 119, "50-119 s"),
        (50, 130, "1-2 min"),
        (4200, 5760, "70-96 min"),
        (8580, 16320, "2:23-4:32 h"),
    ],
)
def test_a_range_has_one_unit(low: float, high: float, text: str) -> None:
    assert span(low, high) == text
