"""Statistics of groups of runs: percentiles, means with intervals, ratios."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_results import LOCAL, OWN_SERVER, failed_run, full_result, made_run

from hunyuan_local.bench.results.result import Stages
from hunyuan_local.bench.results.statistics import Group, ratio_of_means, stage_means, summarise, summary_of

times = st.floats(min_value=1e-3, max_value=1e5)
samples = st.lists(times, min_size=2, max_size=12)
# NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2, column 0.975, by degrees of freedom.
CRITICAL_VALUES = {1: 12.706, 2: 4.303, 4: 2.776, 9: 2.262, 29: 2.045}


def only_group(*runs: object) -> Group:
    (group,) = summarise(runs)
    return group


@pytest.mark.parametrize(("freedom", "critical"), CRITICAL_VALUES.items())
def test_the_interval_of_a_mean_is_that_of_a_published_table(freedom: int, critical: float) -> None:
    values = [float(i * i) for i in range(freedom + 1)]
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / freedom)
    found = summary_of(values)
    half = critical * deviation / math.sqrt(len(values))
    assert (found.low, found.high) == pytest.approx((mean - half, mean + half), rel=2e-4, abs=2e-4 * half)


@pytest.mark.parametrize(("values", "p50", "p95"), [(range(1, 12), 6, 10.5), (range(1, 5), 2.5, 3.85), ([7], 7, 7)])
def test_percentiles_lie_linearly_between_runs(values: Sequence[int], p50: float, p95: float) -> None:
    found = summary_of([float(value) for value in values])
    assert (found.p50, found.p95) == pytest.approx((p50, p95))


def test_one_run_has_no_interval() -> None:
    found = summary_of([3.0])
    assert (found.mean, found.low, found.high, found.count) == (3.0, None, None, 1)


@settings(deadline=None)
@given(times, st.integers(min_value=2, max_value=12))
def test_equal_runs_have_an_interval_of_no_width(value: float, count: int) -> None:
    found = summary_of([value] * count)
    assert {found.p50, found.p95, found.mean, found.low, found.high} == {value}


@settings(deadline=None)
@given(samples, st.randoms())
def test_the_order_of_runs_changes_nothing(values: list[float], rng: random.Random) -> None:
    shuffled = rng.sample(values, len(values))
    assert summary_of(shuffled) == summary_of(values)


@settings(deadline=None)
@given(samples)
def test_a_summary_lies_within_its_runs_and_in_its_interval(values: list[float]) -> None:
    found = summary_of(values)
    assert min(values) <= found.p50 <= found.p95 <= max(values)
    assert found.low <= found.mean <= found.high


@settings(deadline=None)
@given(samples)
def test_twice_the_seconds_are_twice_of_everything(values: list[float]) -> None:
    once, twice = summary_of(values), summary_of([2 * value for value in values])
    assert twice.mean == 2 * once.mean
    assert twice.high - twice.mean == pytest.approx(2 * (once.high - once.mean), abs=1e-9)


@settings(deadline=None)
@given(samples, samples)
def test_the_ratio_the_other_way_round_is_the_inverse(a: list[float], b: list[float]) -> None:
    there, back = ratio_of_means(a, b), ratio_of_means(b, a)
    assert (1 / back.value, 1 / back.high, 1 / back.low) == pytest.approx((there.value, there.low, there.high))


@settings(deadline=None, max_examples=40)  # scipy's test takes some milliseconds
@given(samples, samples)
def test_the_interval_of_a_ratio_is_welchs_of_the_runs_over_their_mean(a: list[float], b: list[float]) -> None:
    from scipy.stats import ttest_ind  # the import takes a second, and most of the suite's processes do not need it

    a, b = [*a, 2 * max(a)], [*b, 2 * max(b)]  # not all equal, because Welch's test is then undefined
    scaled = [[value * len(values) / sum(values) for value in values] for values in (a, b)]
    half = ttest_ind(*scaled, equal_var=False).confidence_interval(0.95).high
    found = ratio_of_means(a, b)
    assert math.log(found.high / found.value) == pytest.approx(half, rel=1e-6, abs=1e-9)
    assert math.log(found.value / found.low) == pytest.approx(half, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("count_a", "count_b", "scatter"), [(3, 3, 0.05), (3, 3, 0.2), (3, 10, 0.2), (20, 20, 0.3)])
def test_the_interval_of_a_ratio_holds_the_true_one_nineteen_times_of_twenty(
    count_a: int, count_b: int, scatter: float
) -> None:
    rng = random.Random(20)
    held = 0
    for _ in range(800):
        a = [rng.gauss(10, 10 * scatter) for _ in range(count_a)]
        b = [rng.gauss(17, 17 * scatter) for _ in range(count_b)]
        found = ratio_of_means(a, b)
        held += found.low <= 1.7 <= found.high
    # 0.95 minus, or plus, three standard errors of 800 trials and the error of the approximation.
    assert 0.925 <= held / 800 <= 0.985


def test_the_ratio_of_single_runs_has_no_interval() -> None:
    found = ratio_of_means([2.0], [3.0, 3.0])
    assert (found.value, found.low, found.high) == (1.5, None, None)


def test_the_ratio_of_equal_runs_has_an_interval_of_no_width() -> None:
    found = ratio_of_means([2.0, 2.0], [3.0, 3.0])
    assert (found.value, found.low, found.high) == (1.5, 1.5, 1.5)


def test_there_is_no_ratio_to_nothing() -> None:
    assert ratio_of_means([0.0, 0.0], [3.0, 3.0]) is None


def test_prompts_and_seeds_are_samples_of_one_group() -> None:
    group = only_group(made_run(total_s=1.0), made_run(total_s=2.0, prompt="a fox"), made_run(total_s=3.0, seed=9))
    assert group.values["total_s"] == (1.0, 2.0, 3.0)


@pytest.mark.parametrize("other", [{"scenario": "b"}, {"size": (512, 320)}, {"frames": 33}, {"steps": 2}])
def test_another_scenario_size_length_or_step_count_is_another_group(other: dict[str, object]) -> None:
    assert len(summarise([made_run(), made_run(**other)])) == 2


def test_another_backend_is_another_group() -> None:
    assert [group.backend for group in summarise([made_run(), made_run(OWN_SERVER)])] == ["local", OWN_SERVER.label]


def test_groups_of_one_request_stand_together() -> None:
    runs = [made_run(steps=2), made_run(steps=10), made_run(OWN_SERVER, steps=2), made_run(OWN_SERVER, steps=10)]
    found = [(group.request.num_inference_steps, group.backend) for group in summarise(runs)]
    assert found == [(2, "local"), (2, OWN_SERVER.label), (10, "local"), (10, OWN_SERVER.label)]


def test_a_warmup_is_in_no_group() -> None:
    assert summarise([made_run(kind="warmup")]) == []


def test_failed_and_interrupted_runs_are_counted_beside() -> None:
    group = only_group(made_run(total_s=1.0), failed_run(), made_run(total_s=99.0, status="interrupted"))
    assert (group.count, group.failed, group.interrupted) == (1, 1, 1)
    assert group.values["total_s"] == (1.0,)


def test_a_group_without_a_run_that_succeeded_has_no_summaries() -> None:
    assert only_group(failed_run()).summaries == {}


def test_a_stage_that_some_runs_tell_is_summarised_over_those() -> None:
    group = only_group(made_run(total_s=10.0), made_run(stages=Stages(total_s=10.0)))
    assert (group.summaries["denoise_s"].count, group.summaries["total_s"].count) == (1, 2)


def test_a_figure_that_is_no_finite_number_counts_as_not_told() -> None:
    assert "cost_usd" not in only_group(made_run(cost_usd=math.inf)).values


def test_a_group_knows_what_was_made_where_that_was_left_open() -> None:
    (work,) = only_group(made_run(size=(None, None), frames=None, steps=None)).works
    assert work[:4] == (256, 160, 17, 30)


def test_true_cfg_is_work_of_another_kind() -> None:
    assert [only_group(made_run(true_cfg_scale=scale)).works[0].is_doubled for scale in (1.0, 4.0)] == [False, True]


def test_a_group_knows_that_its_runs_differ_in_what_they_made() -> None:
    other = made_run(size=(512, 320))
    assert len(only_group(made_run(), made_run(video=other.video, made=other.made)).works) == 2


def test_memory_of_different_things_is_mixed() -> None:
    gpu = made_run(peak_memory_bytes=1, memory_of="gpu")
    assert only_group(made_run(), gpu).memory_of == "mixed"


def test_stages_and_their_rest_sum_to_the_whole_run() -> None:
    for group in summarise(full_result().runs):
        assert sum(stage_means(group).values()) == pytest.approx(group.summaries["total_s"].mean)


def test_the_rest_is_below_0_where_stages_overlap() -> None:
    group = only_group(made_run(LOCAL, stages=Stages(denoise_s=3.0, decode_s=2.0, total_s=4.0)))
    assert stage_means(group)["rest"] == pytest.approx(-1.0)
