"""Draws the plots of a bench: panels of lines or points, and stacked bars.

With few runs, each is a dot; otherwise the mean has its 95 % interval. matplotlib is imported inside functions and
used through its object API, not pyplot, so that no global state outlives a call.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..results.result import BenchResult
from ..results.statistics import summary_of
from . import amounts
from .markdown import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEW = 5  # below this, an interval says little more than the runs themselves
WIDTH_IN = 9.0
# Okabe and Ito, Color Universal Design (2008), without yellow, which is hard to see on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LINES = ("-", "--", ":", "-.")
# A local stage and the similar stage of a service share a colour; the service's is hatched.
_STAGE_COLOURS = {"load": 4, "encode": 5, "denoise": 0, "decode": 2, "write": 3}
_STAGE_COLOURS |= {"submit": 4, "queue": 5, "run": 0, "poll": 2, "download": 3}
_HATCHED = ("submit", "queue", "run", "poll", "download")
_MAX_TICKS = 9
_GREY = "#555555"
_DOTS = f"each black dot is a run; with {FEW} or more runs, error bars show the 95 % interval of the mean"


@dataclass(frozen=True)
class Style:
    """Appearance of a target in all plots; ``mark`` is the note from :func:`.amounts.mark`."""

    label: str
    mark: str
    colour: str
    marker: str


@dataclass
class Series:
    """A line, or points, of one target and scenario: at each x its runs and the tick label."""

    style: Style
    scenario: str
    x: list[float] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    y_runs: list[Sequence[float]] = field(default_factory=list)
    x_runs: list[Sequence[float]] = field(default_factory=list)

    def add(self, x: float, label: str, y_runs: Sequence[float], x_runs: Sequence[float] = ()) -> None:
        """Add the runs of one group."""
        self.x.append(x)
        self.labels.append(label)
        self.y_runs.append(y_runs)
        self.x_runs.append(x_runs)


def styles(result: BenchResult) -> dict[str, Style]:
    """Style by label, for each target and for each label that only runs have."""
    targets = {target.label: target for target in result.targets}
    found = {}
    for i, label in enumerate(dict.fromkeys([*targets, *(run.backend for run in result.runs)])):
        mark = amounts.mark(targets.get(label))
        found[label] = Style(label, mark, _COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)])
    return found


def decades(values: Sequence[float]) -> float:
    """Powers of ten between the smallest and the largest value; 0 unless all are positive."""
    return math.log10(max(values) / min(values)) if values and min(values) > 0 else 0.0


def draw_panels(
    title: str,
    where: str,
    panels: Mapping[str, list[Series]],
    *,
    x_label: str,
    y_label: str,
    is_log: tuple[bool, bool],
    is_scatter: bool = False,
) -> Figure:
    """Draw one panel per list of series in two columns, with one legend below.

    Args:
        is_log: whether x and y are logarithmic in every panel; linear axes start at 0.
        is_scatter: x is also a measured quantity with one value per run, and points are not joined.
    """
    columns = 1 if len(panels) == 1 else 2
    rows = math.ceil(len(panels) / columns)
    height = 4.6 if rows == 1 else 3.4 * rows
    scenarios = list(dict.fromkeys(series.scenario for listed in panels.values() for series in listed))
    lines = {scenario: _LINES[i % len(_LINES)] for i, scenario in enumerate(scenarios)}
    figure = _figure(title, where, height + 0.2 * len(scenarios))
    legend: dict[str, Any] = {}
    for i, (name, listed) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, i + 1)
        for j, series in enumerate(listed):
            shift = (j - (len(listed) - 1) / 2) * min(0.018, 0.1 / len(listed))
            aside = _aside(listed, 0.0 if is_scatter else shift, is_log[0])
            _draw_series(axes, series, "" if is_scatter else lines[series.scenario], aside)
            legend.setdefault(_name(series.style), _handle(series.style.colour, series.style.marker, "none"))
        _axes(axes, listed, is_log, is_scatter)
        axes.set_title(_text(name, 60), fontsize=10)
        axes.set_xlabel(_text(x_label, 46 if columns == 2 else 90))
        axes.set_ylabel(y_label)
    if len(scenarios) > 1 and not is_scatter:
        legend |= {f"scenario {_cut(name, 80)}": _handle(_GREY, "", line) for name, line in lines.items()}
    _legend(figure, list(legend.values()), list(legend), title=_DOTS)
    return figure


def draw_bars(title: str, where: str, bars: Sequence[tuple[Style, str, Mapping[str, float], float, int]]) -> Figure:
    """Draw stacked bars of (style, request, seconds by stage with ``rest``, mean total seconds, number of runs)."""
    marked = any(style.mark for style, *_ in bars)
    figure = _figure(title, where, 2.2 + (0.56 if marked else 0.42) * len(bars))
    axes = figure.add_subplot()
    handles: dict[str, Any] = {}
    longest = max(bar[3] for bar in bars)
    for place, (_, _, stages, whole, count) in enumerate(bars):
        start = 0.0
        for name, seconds in stages.items():
            # Overlapping stages make the rest negative, which cannot be drawn; the tick marks the end of the run.
            if seconds > 0:
                colour = _COLOURS[_STAGE_COLOURS[name]] if name in _STAGE_COLOURS else "#DDDDDD"
                hatch = "////" if name in _HATCHED else None
                bar = axes.barh(place, seconds, left=start, color=colour, hatch=hatch, edgecolor="white", linewidth=0.4)
                handles.setdefault("rest (between stages)" if name == "rest" else name, bar)
                start += seconds
        axes.plot([whole, whole], [place - 0.45, place + 0.45], color="black", linewidth=1.5)
        end = max(start, whole) + 0.01 * longest
        axes.text(end, place, f"{amounts.number(whole)} s, n = {count}", va="center", fontsize=8)
    axes.set_yticks(range(len(bars)), [_bar_label(style, request) for style, request, *_ in bars], fontsize=8)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_xlim(0, 1.25 * longest if longest > 0 else 1)
    axes.set_xlabel("mean seconds by stage; the black tick is the mean of the whole run")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    _legend(figure, list(handles.values()), list(handles), columns=6)
    return figure


def _figure(title: str, where: str, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{_text(title, 80)}\n{_text(where, 90)}", fontsize=11)
    return figure


def _aside(listed: Sequence[Series], shift: float, is_log: bool) -> Callable[[float], float]:
    """Shift x by a fraction of the axis, so that backends do not cover each other."""
    places = [x for series in listed for x in series.x]
    if is_log and min(places) > 0:
        factor = max(max(places) / min(places), 2.0) ** shift
        return lambda x: x * factor
    return lambda x: x + shift * max(places)


def _draw_series(axes: Axes, series: Series, line: str, aside: Callable[[float], float]) -> None:
    """Draw the means as a line, with their runs or their intervals."""
    order = sorted(range(len(series.x)), key=lambda i: series.x[i])
    x = [aside(series.x[i]) for i in order]
    y = [summary_of(series.y_runs[i]).mean for i in order]
    colour, marker = series.style.colour, series.style.marker
    for place, mean, i in zip(x, y, order, strict=True):
        runs, x_runs = series.y_runs[i], series.x_runs[i]
        if len(runs) < FEW:
            places = x_runs or [place] * len(runs)
            axes.plot(places, runs, "o", color="black", markersize=2.8, zorder=3)
        else:
            x_width = _half_width(x_runs) if x_runs else None
            axes.errorbar(place, mean, yerr=_half_width(runs), xerr=x_width, color=colour, capsize=4, linewidth=1.3)
    axes.plot(x, y, linestyle=line, marker=marker, color=colour, markersize=8, linewidth=1.2)


def _handle(colour: str, marker: str, line: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, marker=marker, linestyle=line, markersize=7)


def _half_width(runs: Sequence[float]) -> float:
    summary = summary_of(runs)
    return 0.0 if summary.high is None else summary.high - summary.mean


def _axes(axes: Axes, listed: Sequence[Series], is_log: tuple[bool, bool], is_scatter: bool) -> None:
    """Set scales, limits and ticks; log limits come from the runs, because an interval may reach below 0."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    axes.grid(alpha=0.3)
    runs = [value for series in listed for values in series.y_runs for value in values]
    runs_x = [value for series in listed for values in series.x_runs for value in values]
    places = [value for series in listed for value in series.x]
    for axis, values, wants_log in (("x", runs_x or places, is_log[0]), ("y", runs, is_log[1])):
        if wants_log and min(values) > 0:
            room = max(1.5, (max(values) / min(values)) ** 0.06)
            getattr(axes, f"set_{axis}scale")("log", nonpositive="clip")
            getattr(axes, f"set_{axis}lim")(min(values) / room, max(values) * room)
            drawn = getattr(axes, f"{axis}axis")
            drawn.set_major_locator(LogLocator(subs=(1, 2, 5) if decades(values) < 3 else (1,)))
            drawn.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            drawn.set_minor_formatter(NullFormatter())
        else:
            getattr(axes, f"set_{axis}lim")(0, (max(values) or 1) * 1.12)
    if not is_scatter:
        axes.xaxis.set_minor_locator(NullLocator())
        _ticks(axes, {x: label for series in listed for x, label in zip(series.x, series.labels, strict=True)})


def _ticks(axes: Axes, labels: Mapping[float, str]) -> None:
    """Label the x positions that have data; skip labels that would overlap the previous one."""
    low, high = axes.get_xlim()
    is_log = axes.get_xscale() == "log"
    kept: list[float] = []

    def place(x: float) -> float:
        return math.log(x / low) / math.log(high / low) if is_log else (x - low) / (high - low)

    for x in sorted(labels):
        if not kept or place(x) - place(kept[-1]) > 1 / (_MAX_TICKS + 4):
            kept.append(x)
    is_long = max(map(len, labels.values())) > 4
    axes.set_xticks(
        kept,
        [_text(labels[x], 24) for x in kept],
        rotation=30 if is_long else 0,
        ha="right" if is_long else "center",
        fontsize=8 if is_long else 10,
    )


def _legend(figure: Figure, handles: list[Any], labels: list[str], columns: int | None = None, title: str = "") -> None:
    """Place the legend below the axes, so that it covers no data."""
    columns = columns or (2 if max(map(len, labels)) <= 50 else 1)
    texts = [_text(label, 90) for label in labels]
    columns = min(columns, len(texts))
    place = "outside lower center"
    figure.legend(handles, texts, loc=place, ncols=columns, fontsize=9, frameon=False, title=title, title_fontsize=8)


def _name(style: Style) -> str:
    """Legend name of a target; a long label is cut, the mark never."""
    label = _cut(style.label, 120)
    return f"{label} ({style.mark})" if style.mark else label


def _bar_label(style: Style, request: str) -> str:
    """Label of a bar, on two or three lines."""
    lines = [style.label, *([f"({style.mark})"] if style.mark else []), request]
    return "\n".join(_text(_cut(line, 46), 60) for line in lines)


def _cut(text: str, limit: int) -> str:
    text = one_line(text)
    return text if len(text) <= limit else f"{text[: limit - 1]}\N{HORIZONTAL ELLIPSIS}"


def _text(text: str, width: int) -> str:
    """Wrap the text, disable mathtext, and escape characters that the font lacks."""
    from matplotlib.font_manager import findfont, get_font

    font = get_font(findfont("DejaVu Sans"))
    shown = "".join(c if font.get_char_index(ord(c)) else f"\\u{ord(c):04x}" for c in one_line(text))
    return textwrap.fill(shown, width).replace("$", r"\$")
