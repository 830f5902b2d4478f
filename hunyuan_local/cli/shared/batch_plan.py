"""Output of ``hunyuan-local plan`` for several videos or several GPUs."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from ...config import GIB
from ...durations import clock, span
from ...planner import BatchOption, BatchPlan
from ...planner.batch import Strategy

_TITLES: dict[Strategy, str] = {
    "one-at-a-time": "one at a time",
    "staged": "staged",
    "replicas": "replicas",
    "context-parallel": "context parallel",
}
# Headings that span two columns of the table.
_HEADINGS: dict[Strategy, tuple[str, str]] = {
    "one-at-a-time": ("one at", "a time"),
    "staged": ("staged", ""),
    "replicas": ("replicas", ""),
    "context-parallel": ("context", "parallel"),
}


def print_batch(console: Console, found: BatchPlan) -> None:
    """Print both strategies side by side for each mode, the assumptions, and the recommendation."""
    rows = [row for row in _rows(found) if any(option.fits for option in row)]
    if rows:
        console.print(_table(rows, found))
    if hidden := len(found.single.modes) - len(rows):
        console.print(
            f"{hidden} of {len(found.single.modes)} modes fit with neither strategy (see --json)",
            markup=False,
        )
    console.print()
    if any(mode.seconds_range for mode in found.single.modes):
        console.print("Times in the table are the middle of a guess for this GPU.", markup=False)
    for text in (*found.single.assumptions, *found.assumptions, *(f"note: {note}" for note in found.single.notes)):
        console.print(text, markup=False, soft_wrap=False, width=80)
    for text in recommendation(found):
        console.print(f"\n{text}", markup=False, soft_wrap=False, width=80)


def recommendation(found: BatchPlan) -> Iterator[str]:
    """Sentences for the recommended strategy and then the other one; nothing if no mode fits."""
    choice = found.choice
    if choice is None:
        return
    yield _sentence(choice, found.videos)
    for strategy in dict.fromkeys(option.strategy for option in found.options if option.strategy != choice.strategy):
        other = found.best(strategy)
        if other is not None:
            yield _sentence(other, found.videos)
            continue
        known = [option for option in found.of(strategy) if option.seconds is not None]
        nearest = min(known, key=lambda option: (option.plan.needed_gpu_bytes, option.host_bytes), default=None)
        why = (
            "not possible, see above" if nearest is None else f"even {nearest.plan.name} does not fit: {nearest.reason}"
        )
        yield f"{_TITLES[strategy]}: {why}"


def _sentence(option: BatchOption, videos: int) -> str:
    assert option.seconds is not None  # it fits
    what = "1 video" if videos == 1 else f"{videos:,} videos"
    where = "" if option.cards == 1 else f" on {option.cards} {'replicas' if option.strategy == 'replicas' else 'GPUs'}"
    return (
        f"{_TITLES[option.strategy]}, {option.plan.name}: about {_about(option, option.seconds.total)} for "
        f"{what}{where}; the first after {_about(option, option.seconds.first)}"
    )


def _about(option: BatchOption, seconds: float) -> str:
    """Seconds as text; a range, in proportion to that of one video, if the GPU's speed is a guess."""
    one, ends = option.plan.seconds, option.plan.seconds_range
    if one is None or ends is None:
        return clock(seconds)
    low, high = (seconds * end / one.total for end in ends)
    return span(low, high)


def _rows(found: BatchPlan) -> Iterator[tuple[BatchOption, ...]]:
    """The options, grouped by mode."""
    for mode in found.single.modes:
        yield tuple(option for option in found.options if option.plan.mode == mode.mode)


def _table(rows: list[tuple[BatchOption, ...]], found: BatchPlan) -> Table:
    """One row per mode: for each strategy, GiB per GPU, time until the first video, and time for all."""
    on_gpu = found.single.machine.device == "cuda"
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("\nmode", no_wrap=True, min_width=23)
    table.add_column("host\nGiB", justify="right", no_wrap=True)
    titles = ("GPU", "first", "all") if on_gpu else ("first", "all")
    for strategy in (option.strategy for option in rows[0]):
        for above, title in zip((*_HEADINGS[strategy], ""), titles, strict=False):
            table.add_column(f"{above}\n{title}", justify="right", no_wrap=True)
    choice = found.choice
    for row in rows:
        chosen = choice in row
        cells = [cell for option in row for cell in _cells(option, on_gpu)]
        host = max((option.host_bytes for option in row if option.fits), default=0)
        name = f"{'>' if chosen else ' '} {row[0].plan.name}"
        table.add_row(name, f"{host / GIB:.1f}", *cells, style="bold green" if chosen else None)
    return table


def _cells(option: BatchOption, on_gpu: bool) -> list[str]:
    if not option.fits:
        return ["-", "-", "-"] if on_gpu else ["-", "-"]
    assert option.seconds is not None  # it fits
    memory = [f"{option.plan.needed_gpu_bytes / GIB:.1f}"] if on_gpu else []
    return [*memory, clock(option.seconds.first), clock(option.seconds.total)]
