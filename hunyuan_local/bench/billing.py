"""What a bench will send to services that bill it, said before anything is sent, and the limit that it keeps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..backends.budget import Budget
from ..errors import ConfigError
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


def set_budgets(makers: Sequence[HostedMaker], max_cost_usd: float | None, path: Path) -> None:
    """Have every submission that is billed counted in a file, and refused above the limit of them all.

    Raises:
        ConfigError: a limit where nothing is billed, or where a price is not known; the file is damaged.
    """
    billed = [maker for maker in makers if maker.target.is_billed]
    if max_cost_usd is not None:
        unknown = [maker.target.label for maker in billed if maker.limits.price_usd is None]
        if unknown:
            raise ConfigError(
                f"max_cost={max_cost_usd:g}: cannot be kept, since the price of a video is not known of "
                f"{', '.join(unknown)}; leave it out, or bench {'it' if len(unknown) == 1 else 'them'} apart"
            )
        if not billed:
            raise ConfigError(f"max_cost={max_cost_usd:g}: no backend of this bench is billed; leave it out")
    for maker in billed:
        maker.spending = Budget(path, maker.limits.price_usd, max_cost_usd)
