"""The plots of a bench: which are drawn, and that they are legible and correct."""

from __future__ import annotations

import functools
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from made_results import LOCAL, OWN_SERVER, failed_run, full_result, hard_result, large_result, made_result, made_run
from matplotlib.axes import Axes
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from PIL import Image

from hunyuan_local.bench.report.drawing import FEW
from hunyuan_local.bench.report.plots import MAX_BARS, MAX_PANELS, PLOTS, make_plots
from hunyuan_local.bench.results.result import BenchResult, Stages
from hunyuan_local.bench.results.statistics import summarise, summary_of
from hunyuan_local.errors import ConfigError

STEPS, SIZE, STAGES, COST = PLOTS


def figure(name: str, result: BenchResult) -> Figure:
    drawn = PLOTS[name](result)
    assert isinstance(drawn, Figure), drawn
    return drawn


@functools.cache
def shown(name: str, make: Callable[[], BenchResult]) -> Figure:
    """A figure after layout, which must not warn; cached for all tests that inspect it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = figure(name, make())
        drawn.draw_without_rendering()
    return drawn


def only_axes(name: str, result: BenchResult) -> Axes:
    (axes,) = figure(name, result).axes
    return axes


def legend_texts(drawn: Figure) -> list[str]:
    return [text.get_text() for legend in drawn.legends for text in legend.get_texts()]


def intervals(axes: Axes) -> list[ErrorbarContainer]:
    return [container for container in axes.containers if isinstance(container, ErrorbarContainer)]


def test_all_four_are_written_at_900_pixels_or_more(tmp_path: Path) -> None:
    runs = [made_run(steps=steps, cost_usd=0.1 * steps) for steps in (2, 10)]
    written = [made for made in make_plots(made_result(runs), tmp_path).values() if isinstance(made, Path)]
    assert [path.name for path in written] == [STEPS, SIZE, STAGES, COST]
    assert all(Image.open(path).width >= 900 for path in written)


def test_what_there_is_no_data_for_is_not_made_and_the_reason_is_given(tmp_path: Path) -> None:
    found = make_plots(made_result([made_run()]), tmp_path)
    assert found[COST] == "there is no run with a known cost among 1 counted runs"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([STEPS, SIZE, STAGES])


def test_without_a_run_that_succeeded_there_is_none(tmp_path: Path) -> None:
    found = make_plots(made_result([failed_run(), made_run(kind="warmup")]), tmp_path)
    assert all(isinstance(reason, str) and "no measured run succeeded" in reason for reason in found.values())
    assert list(tmp_path.iterdir()) == []


def test_a_plot_of_earlier_that_has_no_data_any_more_goes(tmp_path: Path) -> None:
    stale = tmp_path / COST
    stale.write_bytes(b"old")
    make_plots(made_result([failed_run()]), tmp_path)
    assert not stale.exists()


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "plots").write_text("a file")
    with pytest.raises(ConfigError, match=r"plots .*plots: cannot be written"):
        make_plots(made_result([made_run()]), tmp_path / "plots")


@pytest.mark.parametrize("name", PLOTS)
def test_the_title_says_what_and_where(name: str) -> None:
    title = shown(name, full_result).get_suptitle()
    assert title.endswith("\nbench made-up, from Example CPU 9000, 2 cores")


@pytest.mark.parametrize("name", [STEPS, SIZE, STAGES, COST])
def test_axes_have_names_with_units(name: str) -> None:
    for axes in shown(name, full_result).axes:
        labels = f"{axes.get_xlabel()} {axes.get_ylabel()}"
        assert "run, s" in labels or "seconds" in labels
        assert axes.get_xlabel()


@pytest.mark.parametrize("name", [STEPS, SIZE])
def test_what_is_not_the_service_is_marked_in_the_legend(name: str) -> None:
    assert f"{OWN_SERVER.label} (wavespeed format, not the service)" in legend_texts(shown(name, full_result))


def test_what_is_not_the_service_is_marked_next_to_its_bars() -> None:
    labels = [label.get_text() for label in shown(STAGES, full_result).axes[0].get_yticklabels()]
    own = [label for label in labels if OWN_SERVER.label in label]
    assert own and all("(wavespeed format, not the service)" in label for label in own)


@pytest.mark.parametrize("name", PLOTS)
@pytest.mark.parametrize("make", [full_result, hard_result])
def test_the_legend_covers_no_data_and_nothing_is_beyond_the_page(name: str, make: type[BenchResult]) -> None:
    drawn = shown(name, make)
    (legend,) = drawn.legends
    box = legend.get_window_extent()
    assert not any(box.overlaps(axes.get_window_extent()) for axes in drawn.axes)
    assert box.x0 >= 0 and box.x1 <= drawn.bbox.width
    assert box.y0 >= 0
    for axes in drawn.axes:
        for label in axes.get_yticklabels():
            assert label.get_window_extent().x0 >= 0


def test_each_target_has_a_unique_colour_and_marker() -> None:
    (legend,) = shown(STEPS, full_result).legends
    handles = legend.legend_handles
    assert len({handle.get_color() for handle in handles}) == len({handle.get_marker() for handle in handles}) == 3


def test_there_is_a_panel_for_each_size() -> None:
    titles = [axes.get_title().split()[0] for axes in shown(STEPS, full_result).axes]
    assert titles == ["256x160x17", "320x192x17", "512x320x33"]


def test_a_size_of_one_step_count_makes_room_for_those_of_more() -> None:
    drawn = figure(STEPS, made_result([made_run(steps=2), made_run(steps=10), made_run(size=(512, 320))]))
    assert [axes.get_title().split()[0] for axes in drawn.axes] == ["256x160x17"]
    assert "(sizes with more than one number of steps; the tables have all)" in drawn.get_suptitle()


def test_one_step_count_alone_has_its_panel() -> None:
    assert list(only_axes(STEPS, made_result([made_run(), made_run(OWN_SERVER)])).get_xticks()) == [10.0]


def test_sizes_are_placed_by_their_pixels_and_named() -> None:
    axes = shown(SIZE, full_result).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["256x160x17", "320x192x17", "512x320x33"]
    assert list(axes.get_xticks()) == pytest.approx([0.69632, 1.04448, 5.40672])


def test_seconds_start_at_0() -> None:
    assert all(axes.get_ylim()[0] == 0 for axes in shown(STEPS, full_result).axes)


@pytest.mark.parametrize(("slow", "scale"), [(50.0, "linear"), (500.0, "log")])
def test_backends_a_decade_apart_have_logarithmic_axes(slow: float, scale: str) -> None:
    axes = only_axes(STEPS, made_result([made_run(total_s=10.0), made_run(OWN_SERVER, slow)], (LOCAL, OWN_SERVER)))
    assert (axes.get_xscale(), axes.get_yscale()) == (scale, scale)


def test_few_runs_are_each_shown() -> None:
    axes = only_axes(STEPS, made_result([made_run(total_s=float(i)) for i in range(1, FEW)]))
    assert intervals(axes) == []
    shown = [list(line.get_ydata()) for line in axes.get_lines()]
    assert [1.0, 2.0, 3.0, 4.0] in shown


def test_more_runs_are_shown_by_the_interval_of_their_mean() -> None:
    times = [float(i) for i in range(1, FEW + 1)]
    (interval,) = intervals(only_axes(STEPS, made_result([made_run(total_s=seconds) for seconds in times])))
    (segment,) = interval.lines[2][0].get_segments()
    expected = summary_of(times)
    assert [end[1] for end in segment] == pytest.approx([expected.low, expected.high])


def test_the_parts_of_a_bar_sum_to_the_mean_of_the_run() -> None:
    axes = shown(STAGES, full_result).axes[0]
    parts: dict[int, float] = {}
    ends: dict[int, float] = {}
    for container in axes.containers:
        assert isinstance(container, BarContainer)
        for patch in container.patches:
            place = round(patch.get_y() + patch.get_height() / 2)
            parts[place] = parts.get(place, 0.0) + patch.get_width()
            ends[place] = max(ends.get(place, 0.0), patch.get_x() + patch.get_width())
    means = [group.summaries["total_s"].mean for group in summarise(full_result().runs)]
    assert [parts[place] for place in range(len(means))] == pytest.approx(means)
    assert [ends[place] for place in range(len(means))] == pytest.approx(means)


def test_stages_that_overlap_have_no_rest_and_still_a_tick_at_the_end_of_the_run() -> None:
    axes = only_axes(STAGES, made_result([made_run(stages=Stages(denoise_s=3.0, decode_s=2.0, total_s=4.0))]))
    assert len(axes.containers) == 2
    assert list(axes.get_lines()[0].get_xdata()) == [4.0, 4.0]


def test_a_run_of_no_time_at_all_has_a_bar_all_the_same() -> None:
    assert len(shown(STAGES, lambda: made_result([made_run(total_s=0.0)])).axes[0].get_yticks()) == 1


def test_a_video_left_to_the_backend_stands_at_what_was_made() -> None:
    axes = only_axes(SIZE, made_result([made_run(size=(None, None), frames=None, steps=None)]))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["256x160x17"]
    assert axes.get_title() == "30 steps"


@pytest.mark.parametrize(
    ("name", "limit", "words"),
    [(STEPS, MAX_PANELS, "sizes"), (SIZE, MAX_PANELS, "steps"), (STAGES, MAX_BARS, "groups")],
)
def test_a_hundred_groups_are_cut_and_the_title_says_so(name: str, limit: int, words: str) -> None:
    drawn = figure(name, large_result())
    assert len(drawn.axes) == limit or len(drawn.axes[0].get_yticks()) == limit
    assert f"(the first {limit} of " in drawn.get_suptitle() and words in drawn.get_suptitle()


@pytest.mark.parametrize("name", PLOTS)
def test_names_are_drawn_as_they_are_written(name: str) -> None:
    """No mathtext and no bidirectional controls; characters that the font lacks are escaped."""
    drawn = shown(name, hard_result)
    assert "\\u202e" in drawn.get_suptitle()
    texts = legend_texts(drawn) if name != STAGES else [t.get_text() for t in drawn.axes[0].get_yticklabels()]
    assert not any("\u202e" in text or "\u72d0" in text for text in texts)
    assert any(r"a very long label" in text for text in texts)
    assert not any(text.count("$") > text.count(r"\$") for text in texts)


@pytest.mark.usefixtures("starts_process", "with_extras")
def test_no_state_of_pyplot_is_touched() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import made_results\n"
        "from hunyuan_local.bench.report import plots, report\n"
        "assert not {'matplotlib', 'scipy'} & sys.modules.keys()\n"
        "plots.PLOTS['stages.png'](made_results.made_result([made_results.made_run()]))\n"
        "assert 'matplotlib.figure' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(Path(__file__).parent)], check=True)
