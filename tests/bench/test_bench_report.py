"""The report of a bench: its contents, no untrusted text becomes markup, and no row is lost."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from made_results import (
    LOCAL,
    OWN_SERVER,
    SERVICE,
    failed_run,
    full_result,
    hard_result,
    large_result,
    made_result,
    made_run,
)
from rendered import Page

from hunyuan_local.bench.report import plots, report
from hunyuan_local.bench.report.report import summary_json, write_report
from hunyuan_local.bench.results.result import LOADED, BenchResult, Stages
from hunyuan_local.errors import ConfigError

Reports = Callable[[BenchResult], "Page"]
MARK = "(wavespeed format, not the service)"
ORDER = [
    "Machine and versions",
    "Backends",
    "What was measured, and how",
    "Results",
    "Ratios",
    "Stages",
    "Plots",
    "Failed and interrupted runs",
    "Warm-ups",
    "Losses and notes",
    "Not measured",
]


@pytest.fixture
def render(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reports:
    """Renders reports without plots, which are slow and tested elsewhere."""
    monkeypatch.setattr(plots, "make_plots", lambda result, folder: {name: "not wanted" for name in plots.PLOTS})
    return lambda result: Page(write_report(result, tmp_path).read_text(encoding="utf-8"))


def test_the_report_and_its_plots_lie_in_the_folder(tmp_path: Path) -> None:
    path = write_report(made_result([made_run(cost_usd=0.1)]), tmp_path / "new")
    links = re.findall(r"\]\((plots/[^)]*)\)", path.read_text())
    assert path == tmp_path / "new" / "report.md"
    assert len(links) == 4
    assert all((path.parent / link).is_file() for link in links)


def test_the_machine_and_the_method_come_before_the_figures(render: Reports) -> None:
    assert render(full_result()).headings[1:] == ORDER


def test_the_machine_card_is_in_it(render: Reports) -> None:
    rows = render(full_result()).tables["Machine and versions"][0]
    assert ["cpu.model", "Example CPU 9000"] in rows
    assert ["host_memory_bytes", "16.00 GiB"] in rows
    assert ["versions.torch", "2.13.0"] in rows


def test_every_table_of_figures_says_of_each_row_where_it_is_from(render: Reports) -> None:
    page = render(full_result())
    origins = {target.origin for target in (LOCAL, OWN_SERVER, SERVICE)}
    for section in ("Backends", "Results", "Ratios", "Stages", "Failed and interrupted runs", "Warm-ups"):
        for header, *rows in page.tables[section]:
            place = header.index("Origin")
            assert {row[place] for row in rows} <= origins


def test_what_is_not_the_service_is_marked_in_every_row(render: Reports) -> None:
    page = render(full_result())
    for section in ("Results", "Ratios", "Stages", "Warm-ups"):
        for header, *rows in page.tables[section]:
            own = [row for row in rows if row[header.index("Backend")].startswith(OWN_SERVER.label)]
            assert own and all(MARK in row[header.index("Backend")] for row in own)


def test_a_group_is_a_row_with_all_its_figures(render: Reports) -> None:
    runs = [made_run(total_s=seconds, cost_usd=0.25) for seconds in (10.0, 11.0, 12.0)]
    (result,) = render(made_result(runs)).tables["Results"]
    assert dict(zip(*result, strict=True)) == {
        "Steps": "10",
        "Backend": "local",
        "Runs": "3",
        "p50, s": "11.00",
        "p95, s": "11.90 (weak)",
        "Mean, s": "11.00",
        "95 % interval, s": "[8.516, 13.48]",  # 11 ± 4.303 / sqrt(3)
        "Step, s": "0.8800",
        "Peak memory": "1.500 GiB (process)",
        "Cost, USD": "0.2500",
        "Origin": "measured on this machine",
    }


@pytest.mark.parametrize(("count", "weak"), [(19, True), (20, False)])
def test_p95_of_fewer_than_20_runs_is_marked_as_weak(render: Reports, count: int, weak: bool) -> None:
    (result,) = render(made_result([made_run(total_s=float(i + 1)) for i in range(count)])).tables["Results"]
    assert ("(weak)" in result[1][4]) is weak


def test_seconds_a_step_of_a_server_are_marked(render: Reports) -> None:
    (result,) = render(made_result([made_run(), made_run(OWN_SERVER)], (LOCAL, OWN_SERVER))).tables["Results"]
    assert [row[7] for row in result[1:]] == ["0.8000", "0.8000 (server)"]


def test_one_run_has_no_interval(render: Reports) -> None:
    (result,) = render(made_result([made_run()])).tables["Results"]
    assert result[1][6] == "-"


def test_ratios_are_against_the_first_target_that_has_runs(render: Reports) -> None:
    runs = [failed_run(LOCAL)]
    runs += [made_run(target, seconds) for seconds in (10.0, 10.1) for target in (OWN_SERVER, SERVICE)]
    (ratios,) = render(made_result(runs, (LOCAL, OWN_SERVER, SERVICE))).tables["Ratios"]
    verdicts = {row[1]: (row[2], row[7]) for row in ratios[1:]}
    against = f"{OWN_SERVER.label} {MARK}"
    assert verdicts == {
        "local": (against, "no verdict: this backend has no run that succeeded"),
        "novita": (against, "no verdict: the intervals overlap"),
    }


def test_the_first_target_is_that_of_the_plan_not_of_the_first_run(render: Reports) -> None:
    (ratios,) = render(made_result([made_run(SERVICE), made_run()], (LOCAL, SERVICE))).tables["Ratios"]
    assert ratios[1][1:3] == ["novita", "local"]


def test_a_verdict_stands_where_the_intervals_part(render: Reports) -> None:
    runs = [made_run(target, base + i / 10) for i in range(3) for target, base in ((LOCAL, 10.0), (SERVICE, 5.0))]
    (ratios,) = render(made_result(runs, (LOCAL, SERVICE))).tables["Ratios"]
    assert (ratios[1][3][:6], ratios[1][7]) == ("0.5050", "faster")


def test_the_stages_of_a_row_and_their_rest_sum_to_the_total(render: Reports) -> None:
    (stages,) = render(made_result([made_run(total_s=10.0)])).tables["Stages"]
    cells = dict(zip(*stages, strict=True))
    names = ("load", "encode", "denoise", "decode", "write", "rest")
    assert sum(float(cells[name]) for name in names) == pytest.approx(float(cells["total"]))


def test_every_run_that_failed_or_was_interrupted_is_listed_with_its_reason(render: Reports) -> None:
    runs = [made_run(), failed_run(error="no memory"), made_run(status="interrupted", notes=["resumed"])]
    runs.append(failed_run(error="no model", kind="warmup"))
    (failures,) = render(made_result(runs)).tables["Failed and interrupted runs"]
    listed = [(row[0], row[1], row[-2], row[-1]) for row in failures[1:]]
    assert listed == [
        ("2", "failed", "GpuMemoryError", "no memory"),
        ("3", "interrupted", "-", "resumed"),
        ("4", "failed warm-up", "GpuMemoryError", "no model"),
    ]


def test_warmups_have_a_separate_table(render: Reports) -> None:
    page = render(made_result([made_run(total_s=77.0, kind="warmup"), made_run()]))
    (warmups,) = page.tables["Warm-ups"]
    assert warmups[1][4] == "77.00"
    assert "77.00" not in page.text["Results"] + page.text["Stages"]


def test_what_was_left_to_the_backend_is_reported(render: Reports) -> None:
    page = render(made_result([made_run(size=(None, None), frames=None, steps=None)]))
    assert "local generated 256x160, 17 frames, 30 steps" in page.text["Results"]


def test_runs_that_loaded_the_model_first_are_reported(render: Reports) -> None:
    cold = made_run(stages=Stages(load_s=38.0, total_s=50.0))
    assert "local loaded its model in 1 of 2 runs" in render(made_result([cold, made_run()])).text["Results"]
    noted = made_run(notes=[f"{LOADED}: there was no warm-up"])
    assert "local loaded its model in 1 of 2 runs" in render(made_result([noted, made_run()])).text["Results"]
    assert "loaded its model" not in render(made_result([made_run()])).text["Results"]


def test_losses_and_notes_are_in_it_with_their_number(render: Reports) -> None:
    run = made_run(losses=["fps is omitted"], notes=["slow disk"])
    text = render(made_result([run, run])).text["Losses and notes"]
    assert "local, 2 runs, dropped or changed: fps is omitted" in text
    assert "local, 2 runs, note: slow disk" in text


def test_what_was_not_measured_is_reported_with_its_reason(render: Reports) -> None:
    runs = [made_run(cost_source="not known: no costs"), made_run(OWN_SERVER), failed_run(SERVICE)]
    other = LOCAL.model_copy(update={"label": "idle"})
    page = render(made_result(runs, (LOCAL, OWN_SERVER, SERVICE, other), is_complete=False))
    text = page.text["Not measured"]
    for sentence in (
        "this bench is incomplete",
        "cost at local: not known: no costs",
        f"the service itself: {OWN_SERVER.label} is another server",
        f"peak memory at {OWN_SERVER.label}: its runs do not report it",
        "novita: none of its 1 runs counts",
        "idle: no measured run",
        "the plot cost-latency.png: not wanted",
    ):
        assert sentence in text


def test_a_scenario_that_is_for_nobody_in_the_bench_is_reported(render: Reports) -> None:
    scenarios = {"scenarios": [{"name": "circle"}, {"name": "dear", "backends": ["novita"]}]}
    text = render(made_result([made_run()], scenarios=scenarios)).text["Not measured"]
    assert "scenario dear: only for novita, which this bench lacks" in text
    assert "scenario circle" not in text


def test_a_bench_that_is_not_complete_says_so_at_the_top(render: Reports) -> None:
    page = render(made_result([made_run()], is_complete=False, finished_at=None))
    assert "This bench is incomplete" in page.source.split("##")[0]
    assert "not finished" in page.source.split("##")[0]


@pytest.mark.parametrize("runs", [[], [failed_run()], [made_run(kind="warmup")]], ids=["no run", "failed", "warm-up"])
def test_a_bench_without_a_run_that_succeeded_has_a_report(render: Reports, runs: list) -> None:
    page = render(made_result(runs))
    assert page.headings[1:] == ORDER
    assert "None." in page.text["Plots"]


def test_a_run_whose_label_no_target_has_is_not_lost(render: Reports) -> None:
    (result,) = render(made_result([made_run(SERVICE)], (LOCAL,))).tables["Results"]
    assert (result[1][1], result[1][-1]) == ("novita", "unknown: no target has this label")


def test_a_hundred_groups_are_a_hundred_rows(render: Reports) -> None:
    page = render(large_result())
    assert sum(len(rows) - 1 for rows in page.tables["Results"]) == 100
    assert len(page.tables["Stages"][0]) - 1 == 100


def test_nothing_of_others_becomes_markup(render: Reports) -> None:
    hard = hard_result()
    page = render(hard)
    assert page.tags.isdisjoint({"html_inline", "html_block", "link_open", "em_open", "fence", "code_block", "hr"})
    assert page.headings[1:] == ORDER
    for tables in page.tables.values():
        for header, *rows in tables:
            assert {len(row) for row in rows} == {len(header)}
    failures = page.tables["Failed and interrupted runs"][0]
    assert failures[1][-1] == r"line one # line two | a | b | |---|---| <b>x</b>\u0000\u001b[31m \| `code`"
    assert failures[2][-1] == "x" * 599 + "…"
    assert "\u202e" not in page.source


def test_no_line_of_another_breaks_out_of_its_own(render: Reports) -> None:
    normal = made_result([made_run(), failed_run()])
    hostile = made_result([made_run(), failed_run(error="a\r\n\u2028## b\x0b\x85- c", prompt="p\n\n# q")])
    assert len(render(hostile).source.splitlines()) == len(render(normal).source.splitlines())


def test_the_summary_is_json_and_holds_every_group() -> None:
    found = json.loads(json.dumps(summary_json(full_result()), allow_nan=False))
    assert found["runs"] == {"succeeded": 81, "failed": 1, "interrupted": 1, "warmups": 3, "failed_warmups": 0}
    assert len(found["groups"]) == 27
    assert found["groups"][0]["total_s"].keys() == {"p50", "p95", "mean", "low", "high", "count"}
    assert [target["origin"] for target in found["targets"]] == [t.origin for t in (LOCAL, OWN_SERVER, SERVICE)]


def test_a_report_that_cannot_be_written_leaves_the_older_one(
    tmp_path: Path, render: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = render(made_result([made_run()])).source

    def full_disk(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "replacing", full_disk)
    with pytest.raises(ConfigError, match="No space left on device"):
        write_report(full_result(), tmp_path)
    assert (tmp_path / "report.md").read_text() == older
