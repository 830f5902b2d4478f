"""Comparison of two benches: ratios, verdicts, and the differences listed first."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_results import CARD, LOCAL, OWN_SERVER, SERVICE, failed_run, full_result, hard_result, made_result, made_run

from hunyuan_local.bench.report.compare import GroupComparison, compare, comparison_table
from hunyuan_local.bench.results.result import BenchResult, Target
from hunyuan_local.bench.results.statistics import summary_of


def bench(*times: float, target: Target = LOCAL, **fields: Any) -> BenchResult:
    return made_result([made_run(target, seconds, **fields) for seconds in times], (target,))


def only_pair(a: BenchResult, b: BenchResult) -> GroupComparison:
    (pair,) = compare(a, b).groups
    return pair


@pytest.mark.parametrize(("times", "verdict"), [((5.0, 5.1, 5.2), "faster"), ((20.0, 20.1, 20.2), "slower")])
def test_a_verdict_is_given_where_the_intervals_part(times: tuple[float, ...], verdict: str) -> None:
    pair = only_pair(bench(10.0, 10.1, 10.2), bench(*times))
    assert (pair.verdict, pair.reason) == (verdict, "")


@pytest.mark.parametrize("times", [(12.1, 12.6, 13.1), (7.9, 8.4, 8.9)])
def test_there_is_no_verdict_where_the_intervals_overlap(times: tuple[float, ...]) -> None:
    pair = only_pair(bench(10.0, 10.5, 11.0), bench(*times))
    assert not pair.ratios["total_s"].low <= 1 <= pair.ratios["total_s"].high
    assert (pair.verdict, pair.reason) == ("no verdict", "the intervals overlap")


def test_there_is_no_verdict_where_the_ratio_may_be_1() -> None:
    """Two runs of which one takes three times as long prove nothing."""
    a, b = (0.5, 1.5), (9.0, 9.0)
    pair = only_pair(bench(*a), bench(*b))
    assert summary_of(a).high < summary_of(b).low
    assert (pair.verdict, pair.reason) == ("no verdict", "the interval of the ratio contains 1")


@settings(deadline=None)
@given(*[st.lists(st.floats(min_value=1, max_value=100), min_size=2, max_size=6)] * 2)
def test_a_verdict_means_that_both_the_intervals_and_the_ratio_say_so(a: list[float], b: list[float]) -> None:
    pair = only_pair(bench(*a), bench(*b))
    first, second, ratio = summary_of(a), summary_of(b), pair.ratios["total_s"]
    if pair.verdict == "faster":
        assert second.high < first.low and ratio.high < 1
    elif pair.verdict == "slower":
        assert second.low > first.high and ratio.low > 1
    else:
        assert pair.reason


def test_the_ratio_is_of_b_over_a() -> None:
    assert only_pair(bench(10.0, 10.0), bench(15.0, 15.0)).ratios["total_s"].value == 1.5


def test_one_run_has_a_ratio_but_no_verdict() -> None:
    pair = only_pair(bench(10.0), bench(20.0, 20.1))
    assert pair.ratios["total_s"].value == pytest.approx(2.005)
    assert pair.reason == "A has a single run, so no interval"


def test_runs_that_all_failed_have_no_verdict() -> None:
    pair = only_pair(bench(10.0, 10.1), made_result([failed_run()]))
    assert (pair.ratios, pair.reason) == ({}, "B has no run that succeeded")


def test_other_work_has_no_verdict() -> None:
    longer = made_run(frames=33)
    b = made_result([made_run(total_s=seconds, video=longer.video, made=longer.made) for seconds in (20.0, 20.1)])
    pair = only_pair(bench(10.0, 10.1), b)
    assert pair.verdict == "no verdict"
    assert "A made 256x160, 17 frames, 10 steps; B made 256x160, 33 frames, 10 steps" in pair.reason


def test_true_cfg_is_other_work() -> None:
    pair = only_pair(bench(10.0, 10.1), bench(20.0, 20.1, true_cfg_scale=4.0))
    assert "B made 256x160, 17 frames, 10 steps, true CFG" in pair.reason


def test_with_one_target_each_two_backends_are_compared() -> None:
    assert only_pair(bench(10.0), bench(20.0, target=OWN_SERVER)).b.backend == OWN_SERVER.label


def test_with_more_targets_only_the_same_labels_are_compared() -> None:
    a = made_result([made_run(), made_run(SERVICE)], (LOCAL, SERVICE))
    b = made_result([made_run(), made_run(OWN_SERVER)], (LOCAL, OWN_SERVER))
    found = compare(a, b)
    assert [pair.a.backend for pair in found.groups] == ["local"]
    assert [group.backend for group in found.only_a] == ["novita"]
    assert [group.backend for group in found.only_b] == [OWN_SERVER.label]


def test_a_group_that_only_one_has_is_listed() -> None:
    found = compare(bench(10.0), bench(10.0, steps=2))
    text = comparison_table(found)
    assert found.groups == []
    assert "Only in A:\n- circle: 256x160, 17 frames, 10 steps, local: 1 succeeded" in text
    assert "Only in B:\n- circle: 256x160, 17 frames, 2 steps, local: 1 succeeded" in text


def test_what_differs_between_the_machines_is_reported_first() -> None:
    other = CARD | {"versions": {"torch": "2.12.0"}, "date": "another day"}
    found = compare(bench(10.0), made_result([made_run(total_s=9.0)], machine=other))
    assert found.differences == [
        "machine, versions.hunyuan-local: 0.1.0 in A, not recorded in B",
        "machine, versions.torch: 2.13.0 in A, 2.12.0 in B",
    ]
    text = comparison_table(found)
    assert text.index("versions.torch") < text.index("total, s")


def test_what_differs_between_the_targets_is_reported() -> None:
    other = LOCAL.model_copy(update={"profile": "gpu-24gb"})
    found = compare(bench(10.0), made_result([made_run(total_s=20.0)], (other,)))
    assert found.differences == ["target local, profile: cpu in A, gpu-24gb in B"]


def test_other_scenarios_and_repeats_are_reported() -> None:
    scenarios = {"name": "made-up", "repeats": 3, "scenarios": [{"name": "circle", "prompts": ["a fox"]}]}
    found = compare(bench(10.0), made_result([made_run(prompt="a fox")], scenarios=scenarios, repeats=5))
    assert found.differences == [
        "scenarios, scenarios[0].prompts: a red circle in A, a fox in B",
        "repeats: 3 in A, 5 in B",
    ]


def test_a_bench_that_is_not_complete_is_reported() -> None:
    found = compare(bench(10.0), made_result([made_run(total_s=9.0)], is_complete=False))
    assert found.differences == ["B is incomplete: planned runs are missing"]


def test_the_same_file_twice_is_reported() -> None:
    assert "exactly the same runs" in compare(full_result(), full_result()).differences[0]


def test_where_figures_come_from_is_reported() -> None:
    text = comparison_table(compare(bench(10.0), bench(20.0, target=OWN_SERVER)))
    assert "local: measured on this machine" in text
    assert "(wavespeed format, not the service)" in text


@pytest.mark.parametrize("quantity", ["seconds_per_step", "peak_memory_bytes"])
def test_unlike_quantities_have_no_ratio(quantity: str) -> None:
    memory = {"peak_memory_bytes": 2**30, "memory_of": "gpu"}
    pair = only_pair(bench(10.0, 10.1), bench(20.0, 20.1, target=OWN_SERVER, **memory))
    assert quantity not in pair.ratios
    assert len(pair.remarks) == 2


def test_costs_have_a_ratio_where_both_are_known() -> None:
    pair = only_pair(bench(10.0, cost_usd=0.2), bench(10.0, cost_usd=0.1))
    assert pair.ratios["cost_usd"].value == 0.5


def test_a_cost_of_nothing_has_no_ratio() -> None:
    assert "cost_usd" not in only_pair(bench(10.0, cost_usd=0.0), bench(10.0, cost_usd=0.1)).ratios


@pytest.mark.parametrize("make", [full_result, hard_result])
def test_the_table_is_80_columns_wide(make: Any) -> None:
    assert max(map(len, comparison_table(compare(make(), make())).splitlines())) <= 80


def test_the_table_moves_no_cursor() -> None:
    hostile = made_run(scenario="\x1b[2J\u202ered")
    text = comparison_table(compare(made_result([hostile]), made_result([hostile])))
    assert "\\u001b[2J\\u202ered" in text


def test_the_comparison_is_json() -> None:
    found = json.loads(json.dumps(compare(full_result(), full_result()).to_json(), allow_nan=False))
    assert {"a", "b", "differences", "groups", "only_a", "only_b"} == found.keys()
    assert found["groups"][0]["ratios"]["total_s"]["value"] == 1.0
