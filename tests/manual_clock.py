"""A clock that the test controls."""

from __future__ import annotations


class ManualClock:
    """Returns seconds since 1970; constant until ``now`` is changed."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
