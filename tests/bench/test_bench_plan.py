"""The runs of a bench, their order, and the remaining ones after an interruption."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hunyuan_local.bench.results.result import BenchRun, Target
from hunyuan_local.bench.run.plan import PlannedRun, folder_name, key_of, measured_runs, missing_runs, warmup_runs
from hunyuan_local.bench.run.scenarios import ScenarioFile

LOCAL = Target(label="local", backend="local", origin="here", identity="a model")
NOVITA = Target(label="novita", backend="novita", origin="there", base_url="https://n.example", identity="novita")
WAVESPEED = Target(
    label="wavespeed", backend="wavespeed", origin="there", base_url="https://w.example", identity="wavespeed"
)
TARGETS = [LOCAL, NOVITA, WAVESPEED]


def scenario_file(**changes: Any) -> ScenarioFile:
    """Two sizes, two step counts."""
    scenario = {"name": "a", "prompts": ["x"], "sizes": ["64x64", "96x64"], "num_inference_steps": [10, 2],
                "seeds": [1]}  # fmt: skip
    scenario |= changes.pop("scenario", {})
    return ScenarioFile.model_validate({"name": "plan", "scenarios": [scenario]} | changes)


def row(run: PlannedRun, status: str = "succeeded") -> BenchRun:
    """The row of a run."""
    return BenchRun(
        backend=run.label, scenario=run.scenario, request=run.request, repeat=run.repeat, kind=run.kind, status=status,
        started_at="2026-01-01T00:00:00+00:00",
    )  # fmt: skip


def test_every_target_gets_every_request_as_often_as_said() -> None:
    runs = measured_runs(scenario_file(), TARGETS, 3)
    assert len(runs) == len({run.key for run in runs}) == 36
    assert Counter(run.label for run in runs) == {"local": 12, "novita": 12, "wavespeed": 12}


def test_repeats_are_outermost_then_requests() -> None:
    runs = measured_runs(scenario_file(), TARGETS, 2)
    assert [(run.repeat, run.number) for run in runs] == sorted((r, n) for r in (0, 1) for n in range(4) for _ in "abc")


def test_the_targets_take_turns_at_being_first() -> None:
    firsts = [run.label for run in measured_runs(scenario_file(), TARGETS, 3)[::3]]
    assert firsts[:4] == ["local", "novita", "wavespeed", "local"]
    assert set(firsts[0::4]) == {"local", "novita", "wavespeed"}  # of one request, across its repeats


def test_a_scenario_may_be_for_some_backends_alone() -> None:
    runs = measured_runs(scenario_file(scenario={"backends": ["local"]}), TARGETS, 1)
    assert [run.label for run in runs] == ["local"] * 4


def test_video_names_are_unique() -> None:
    runs = measured_runs(scenario_file(scenario={"name": "Ünïcode / a:b"}), [LOCAL], 3)
    assert len({run.file_name for run in runs}) == 12
    assert all("/" not in run.file_name for run in runs)


def test_no_two_targets_have_one_folder() -> None:
    urls = ["http://a/b", "http://a-b", f"http://{'a' * 60}/1", f"http://{'a' * 60}/2"]
    targets = [LOCAL, NOVITA, *(NOVITA.model_copy(update={"label": f"novita at {url}"}) for url in urls)]
    names = [folder_name(target) for target in targets]
    assert len(set(names)) == 6
    assert names[:2] == ["local", "novita"]


def test_only_what_has_no_row_is_missing() -> None:
    runs = measured_runs(scenario_file(), TARGETS, 1)
    rows = [row(runs[0]), row(runs[1], "failed"), row(runs[2], "interrupted")]
    assert missing_runs(runs, rows) == runs[3:]
    assert missing_runs(runs, rows, retry_failed=True) == [runs[1], *runs[3:]]


def test_a_row_read_from_disk_is_that_of_its_run() -> None:
    run = measured_runs(scenario_file(scenario={"guidance_scale": 6}), [LOCAL], 1)[0]
    assert key_of(BenchRun.model_validate_json(row(run).model_dump_json())) == run.key


def test_each_size_is_warmed_up_at_the_fewest_steps() -> None:
    file = scenario_file(warmup={"local": 2})
    runs = warmup_runs(file, TARGETS, measured_runs(file, TARGETS, 3), [])
    assert [(run.label, run.request.width, run.request.num_inference_steps, run.repeat) for run in runs] == [
        ("local", 64, 2, 0), ("local", 64, 2, 1), ("local", 96, 2, 0), ("local", 96, 2, 1),
    ]  # fmt: skip


def test_a_local_process_that_is_new_is_warmed_up_for_what_is_left() -> None:
    file = scenario_file()
    planned = measured_runs(file, [LOCAL], 1)
    warm = warmup_runs(file, [LOCAL], planned, [])
    rows = [*map(row, warm), *(row(run) for run in planned if run.request.width == 64)]
    again = warmup_runs(file, [LOCAL], planned, rows)
    assert [(run.request.width, run.repeat) for run in again] == [(96, 1)]


def test_a_complete_bench_is_not_warmed_up() -> None:
    file = scenario_file()
    planned = measured_runs(file, [LOCAL], 1)
    assert warmup_runs(file, [LOCAL], planned, [row(run) for run in planned]) == []


def test_a_services_warm_up_is_paid_for_once() -> None:
    file = scenario_file(warmup={"hosted": 1})
    planned = measured_runs(file, [NOVITA], 1)
    warm = warmup_runs(file, [NOVITA], planned, [])
    assert len(warm) == 2
    assert warmup_runs(file, [NOVITA], planned, [*map(row, warm)]) == []
