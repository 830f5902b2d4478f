"""What a bench will send to services that bill it, said before anything is sent, and the limit that it keeps."""

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
        label: of the target.
        tasks: that would be submitted.
        price_usd: of each; None is not known.
        price_source: where that is from.
        open_tasks: that were submitted in an earlier run of the bench, and will only be fetched.
    """

    label: str
    tasks: int
    price_usd: float | None
    price_source: str
    open_tasks: int

    @property
    def sentence(self) -> str:
        """What is asked for, in words."""
        if self.price_usd is None:
            price = "at a price that is not known here: look at the service's page"
        else:
            price = f"at {self.price_usd:.2f} US dollars each, {self.tasks * self.price_usd:.2f} in all"
            price += f" ({self.price_source})" if self.price_source else ""
        taken_up = f"; {self.open_tasks} more, open from before, not paid again" if self.open_tasks else ""
        return f"{self.label}: {self.tasks} {'video' if self.tasks == 1 else 'videos'} {price}{taken_up}"


def make_bills(todo: Iterable[PlannedRun], makers: Iterable[HostedMaker]) -> list[Bill]:
    """What the runs that are left cost at the services that bill them; none where nothing would be submitted."""
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
    """What counts the submissions to each target that is billed, in one file, and keeps the limit of them all.

    Args:
        billed: by label, with the price.

    Returns:
        By label.

    Raises:
        ConfigError: a limit where nothing is billed, or where a price is not known; the file is damaged.
    """
    if max_cost_usd is not None:
        unknown = [label for label, limits in billed.items() if limits.price_usd is None]
        if unknown:
            raise ConfigError(
                f"max_cost={max_cost_usd:g}: cannot be kept, since the price of a video is not known of "
                f"{', '.join(unknown)}; leave it out, or bench {'it' if len(unknown) == 1 else 'them'} apart"
            )
        if not billed:
            raise ConfigError(f"max_cost={max_cost_usd:g}: no backend of this bench is billed; leave it out")
    return {label: Budget(path, limits.price_usd, max_cost_usd) for label, limits in billed.items()}
