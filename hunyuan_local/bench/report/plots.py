"""The plots of a bench: which groups appear on which, and why a plot is missing. :mod:`.drawing` draws them.

Sizes and steps are those of the generated videos, not of the requests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...durable import replacing
from ...errors import ConfigError
from ..results.result import BenchResult
from ..results.statistics import Group, Request, Work, stage_means, summarise
from . import amounts
from .drawing import Series, Style, decades, draw_bars, draw_panels, styles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_PANELS = 12
MAX_BARS = 60
Panels = dict[str, dict[tuple[str, str], Series]]
_DPI = 150  # 9 inches give 1350 pixels: sharp at a width of 900 pixels, also on high-density screens


@dataclass(frozen=True)
class _Shown:
    """A group with a time, and the work it did."""

    group: Group
    work: Work | Request
    style: Style

    @property
    def seconds(self) -> tuple[float, ...]:
        return self.group.values["total_s"]

    @property
    def voxels(self) -> float | None:
        """Width x height x frames, in pixels."""
        work = self.work
        if work.width is None or work.height is None or work.num_frames is None:
            return None
        return float(work.width * work.height * work.num_frames)

    @property
    def size(self) -> str:
        frames = "?" if self.work.num_frames is None else self.work.num_frames
        return f"{amounts.size(self.work.width, self.work.height)}x{frames}"


def make_plots(result: BenchResult, folder: Path) -> dict[str, Path | str]:
    """Draw the plots that the rows allow into ``folder``, and delete older plots that are no longer possible.

    Args:
        folder: created if it does not exist.

    Returns:
        By file name, the path, or the reason why there is no plot.

    Raises:
        ConfigError: a file cannot be written.
    """
    found = {name: draw(result) for name, draw in PLOTS.items()}
    written: dict[str, Path | str] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in found.items():
            path = folder / name
            if isinstance(figure, str):
                path.unlink(missing_ok=True)
                written[name] = figure
            else:
                with replacing(path) as partial:
                    figure.savefig(partial, format="png", dpi=_DPI)
                written[name] = path
    except OSError as error:
        raise ConfigError(f"plots {folder}: cannot be written: {error.strerror or error}; check the disk") from error
    return written


def _latency_by_steps(result: BenchResult) -> Figure | str:
    """Total time over steps, one panel per size and length."""
    panels: Panels = {}
    for shown in _shown(result):
        if shown.work.num_inference_steps is not None:
            series = _series(panels.setdefault(shown.size, {}), shown)
            series.add(float(shown.work.num_inference_steps), str(shown.work.num_inference_steps), shown.seconds)
    if not panels:
        return _nothing(result, "with a known number of steps")
    panels, cut = _chosen(panels, "sizes", "number of steps")
    return draw_panels(
        *_title(f"Latency by steps{cut}", result),
        {f"{name} (width x height x frames)": list(series.values()) for name, series in panels.items()},
        x_label="denoising steps",
        y_label="whole run, s",
        is_log=(_is_log(panels),) * 2,
    )


def _latency_by_size(result: BenchResult) -> Figure | str:
    """Total time over pixels times frames, one panel per number of steps."""
    panels: Panels = {}
    for shown in _shown(result):
        if shown.voxels is not None:
            series = _series(panels.setdefault(amounts.steps_words(shown.work.num_inference_steps), {}), shown)
            series.add(shown.voxels / 1e6, shown.size, shown.seconds)
    if not panels:
        return _nothing(result, "with a known size and length")
    panels, cut = _chosen(panels, "numbers of steps", "size")
    sizes = [x for panel in panels.values() for series in panel.values() for x in series.x]
    return draw_panels(
        *_title(f"Latency by size{cut}", result),
        {name: list(series.values()) for name, series in panels.items()},
        x_label="width x height x frames, positioned by total pixels",
        y_label="whole run, s",
        is_log=(_is_log(panels) or decades(sizes) > 0.5,) * 2,  # sizes mostly grow by doubling sides
    )


def _stages(result: BenchResult) -> Figure | str:
    """Mean seconds of each stage, stacked to the mean of the whole run."""
    shown = _shown(result)
    if not shown:
        return _nothing(result, "with a known time")
    bars = []
    for item in shown[:MAX_BARS]:
        steps = amounts.steps_words(item.work.num_inference_steps)
        request = f"{item.size}, {steps}, {item.group.request.scenario}"
        whole = item.group.summaries["total_s"].mean
        bars.append((item.style, request, stage_means(item.group), whole, item.group.count))
    return draw_bars(*_title(f"Stages of a run{_cut(len(shown), MAX_BARS, 'groups')}", result), bars)


def _cost_by_latency(result: BenchResult) -> Figure | str:
    """Cost per video over total time."""
    panel: dict[tuple[str, str], Series] = {}
    for shown in _shown(result):
        costs, seconds = shown.group.values.get("cost_usd", ()), shown.seconds
        if len(costs) == len(seconds):
            label = f"{shown.size}, {amounts.steps_words(shown.work.num_inference_steps)}"
            _series(panel, shown).add(sum(seconds) / len(seconds), label, costs, seconds)
    if not panel:
        return _nothing(result, "with a known cost")
    x = [value for series in panel.values() for runs in series.x_runs for value in runs]
    y = [value for series in panel.values() for runs in series.y_runs for value in runs]
    return draw_panels(
        *_title("Cost against latency", result),
        {"": list(panel.values())},
        x_label="whole run, s",
        y_label="cost per video, USD",
        is_log=(decades(x) > 1, decades(y) > 1),
        is_scatter=True,
    )


PLOTS: dict[str, Callable[[BenchResult], Figure | str]] = {
    "latency-by-steps.png": _latency_by_steps,
    "latency-by-size.png": _latency_by_size,
    "stages.png": _stages,
    "cost-latency.png": _cost_by_latency,
}


def _shown(result: BenchResult) -> list[_Shown]:
    """Groups with at least one counted time, by request; a group with mixed work is placed at its request."""
    by_label = styles(result)
    return [
        _Shown(group, group.works[0] if len(group.works) == 1 else group.request, by_label[group.backend])
        for group in summarise(result.runs)
        if "total_s" in group.values
    ]


def _series(panel: dict[tuple[str, str], Series], shown: _Shown) -> Series:
    """The line of a target and scenario on a panel."""
    key = (shown.group.backend, shown.group.request.scenario)
    return panel.setdefault(key, Series(shown.style, shown.group.request.scenario))


def _is_log(panels: Panels) -> bool:
    """Whether two lines differ by more than a factor of ten at the same x; otherwise linear axes from 0 are clearer."""
    for panel in panels.values():
        at: dict[float, list[float]] = {}
        for series in panel.values():
            for x, runs in zip(series.x, series.y_runs, strict=True):
                at.setdefault(x, []).append(sum(runs) / len(runs))
        if any(decades(values) > 1 for values in at.values()):
            return True
    return False


def _chosen(panels: Panels, things: str, other: str) -> tuple[Panels, str]:
    """The panels to draw, with a note for the title: those with more than one x position, if there are any."""
    wide = {
        name: panel for name, panel in panels.items() if len({x for series in panel.values() for x in series.x}) > 1
    }
    left_out = f" ({things} with more than one {other}; the tables have all)" if 0 < len(wide) < len(panels) else ""
    panels = wide or panels
    return dict(list(panels.items())[:MAX_PANELS]), _cut(len(panels), MAX_PANELS, things) or left_out


def _cut(count: int, limit: int, things: str) -> str:
    return f" (the first {limit} of {count} {things}; the tables have all)" if count > limit else ""


def _title(what: str, result: BenchResult) -> tuple[str, str]:
    """Title, and a second line on the bench and machine."""
    return what, f"bench {result.name}, from {amounts.machine_name(result.machine)}"


def _nothing(result: BenchResult, condition: str) -> str:
    counted = sum(run.counts for run in result.runs)
    return (
        f"no measured run succeeded {condition}"
        if not counted
        else f"there is no run {condition} among {counted} counted runs"
    )
