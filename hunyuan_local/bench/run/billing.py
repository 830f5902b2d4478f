"""The bill of a bench, shown before anything is sent to a paid service, and its spending limit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...backends.hosted.spending import Budget
from ...capabilities import Capabilities
from ...errors import ConfigError
from .makers import HostedMaker
from .plan import PlannedRun


@dataclass(frozen=True)
class Bill:
    """The tasks for one service.

    Attributes:
        label: label of the target.
        tasks: number of tasks to submit.
        price_usd: price of one task; None if unknown.
        price_source: where the price comes from.
        open_tasks: tasks that an earlier run of the bench submitted, and that only need to be fetched.
    """

    label: str
    tasks: int
    price_usd: float | None
    price_source: str
    open_tasks: int

    @property
    def sentence(self) -> str:
        """The bill in words."""
        if self.price_usd is None:
            price = "at an unknown price: see the service's pricing page"
        else:
            price = f"at {self.price_usd:.2f} US dollars each, {self.tasks * self.price_usd:.2f} in total"
            price += f" ({self.price_source})" if self.price_source else ""
        resumed = f"; {self.open_tasks} more already submitted and paid for" if self.open_tasks else ""
        return f"{self.label}: {self.tasks} {'video' if self.tasks == 1 else 'videos'} {price}{resumed}"


def make_bills(todo: Iterable[PlannedRun], makers: Iterable[HostedMaker]) -> list[Bill]:
    """Bill for the remaining runs at each paid service; services with nothing to submit are omitted."""
    runs, bills = list(todo), []
    for maker in makers:
        if not maker.target.is_billed:
            continue
        mine = [run for run in runs if run.label == maker.target.label]
        tasks, open_tasks = sum(map(maker.will_send, mine)), sum(map(maker.is_open, mine))
        limits = maker.limits
        if tasks:
            bills.append(Bill(maker.target.label, tasks, limits.price_usd, limits.price_source or "", open_tasks))
    return bills


def make_budgets(billed: Mapping[str, Capabilities], max_cost_usd: float | None, path: Path) -> dict[str, Budget]:
    """Budgets that record submissions to all billed targets in one file and enforce their common limit.

    Args:
        billed: capabilities, with the price, of each billed target by label.

    Returns:
        One budget per billed target, by label.

    Raises:
        ConfigError: there is a limit but no billed target or an unknown price; or the file is damaged.
    """
    if max_cost_usd is not None:
        unknown = [label for label, limits in billed.items() if limits.price_usd is None]
        if unknown:
            raise ConfigError(
                f"max_cost={max_cost_usd:g}: cannot be enforced, because the price of a video is unknown for "
                f"{', '.join(unknown)}; omit it, or bench {'it' if len(unknown) == 1 else 'them'} separately"
            )
        if not billed:
            raise ConfigError(f"max_cost={max_cost_usd:g}: no backend of this bench is billed; omit it")
    return {label: Budget(path, limits.price_usd, max_cost_usd) for label, limits in billed.items()}
