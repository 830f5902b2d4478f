"""The quality benchmark without a model: its plan, tables, sheet, and what counts as wrong."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import quality_tables
import tiny_quality
from quality_records import Record, measure
from quality_sheet import contact_sheet
from quality_tasks import PLAN, WORDS, Run, Task, choose_runs, make_tasks
from shape_reading import Reading, judge
from tiny.captions import plain
from tiny.world import LANDSCAPE, PORTRAIT, combinations, is_held_out, render, sample_scene

from hunyuan_local.errors import InvalidOutputError, ModelLoadError

RUN = Run(8, 17, "landscape")


def scripted(make=None):
    """Stand-ins for generation and judging that render the request instead of using a model."""
    clips = {}

    def generate(task: Task, path: Path) -> Path:
        frames = make(task) if make else rendered(task)
        clips[path] = frames
        path.write_bytes(b"")
        return path

    return generate, lambda path: clips[path]


def rendered(task: Task) -> np.ndarray:
    scene = sample_scene(np.random.default_rng(task.seed), task.combination, task.size, task.run.frames)
    return np.round(render(scene) * 255).astype(np.uint8)


def records(wrong: int = 0, stills: np.ndarray | None = None) -> list[Record]:
    """A record of each combination; the first ones show a wrong shape."""
    made = []
    for number, c in enumerate(combinations()):
        shape = {"circle": "square", "square": "triangle", "triangle": "circle"}[c.shape] if number < wrong else c.shape
        reading = Reading(c.background, c.colour, c.direction, shape, 0.9, 0.2, 0.0, True)
        made.append(Record(Task(RUN, c, plain(c), LANDSCAPE, number), reading, stills=stills))
    return made


# The plan


def test_plan_without_options():
    assert choose_runs(None, None) == list(PLAN)


@pytest.mark.parametrize(
    ("steps", "frames", "runs"),
    [
        ([2], None, [Run(2, 17, "alternating")]),
        ([4], [17], [Run(4, 17, "landscape"), Run(4, 17, "portrait")]),
        ([4], [33], [Run(4, 33, "alternating")]),
        ([3], None, [Run(3, 17, "alternating")]),
        (None, [33], [Run(8, 33, "alternating")]),
        (None, [9], [Run(8, 9, "alternating")]),
    ],
)
def test_options_select_from_the_plan(steps, frames, runs):
    assert choose_runs(steps, frames) == runs


def test_naming_the_whole_plan_keeps_it_and_adds_the_missing_pairs():
    chosen = choose_runs([8, 4, 2], [17, 33])
    assert set(PLAN) < set(chosen)
    assert set(chosen) - set(PLAN) == {Run(4, 33, "alternating"), Run(2, 33, "alternating")}


def test_tasks_cover_all_combinations_once_with_different_seeds():
    tasks = make_tasks(Run(2, 17, "alternating"), seed=1)
    assert {t.combination for t in tasks} == set(combinations())
    assert len({t.seed for t in tasks}) == len(tasks) == 216
    assert Counter(t.size for t in tasks) == {LANDSCAPE: 108, PORTRAIT: 108}
    assert {t.size for t in tasks if is_held_out(t.combination)} == {LANDSCAPE, PORTRAIT}


def test_tasks_depend_on_the_seed_and_the_run_alone():
    tasks = make_tasks(RUN, seed=1)
    assert make_tasks(RUN, seed=1, limit=5) == tasks[:5]
    assert {t.seed for t in tasks}.isdisjoint(t.seed for t in make_tasks(RUN, seed=2))
    assert {t.seed for t in tasks}.isdisjoint(t.seed for t in make_tasks(Run(4, 17, "landscape"), seed=1))


# What counts


def test_right_videos_count_as_right(tmp_path):
    made = list(measure(make_tasks(RUN, 1, 3), tmp_path, *scripted(), keep=False))
    assert all(all(r.right.values()) for r in made)
    assert not list(tmp_path.iterdir())


def test_kept_videos_stay(tmp_path):
    list(measure(make_tasks(RUN, 1, 2), tmp_path, *scripted(), keep=True))
    assert len(list(tmp_path.iterdir())) == 2


def refuse(error: Exception):
    def make(task):
        raise error

    return make


def test_refused_generation_counts_as_wrong_in_all(tmp_path):
    generate, read = scripted(refuse(InvalidOutputError("the video is frozen")))
    (record,) = measure(make_tasks(RUN, 1, 1), tmp_path, generate, read, keep=False)
    assert not any(record.right.values())
    assert record.iou == 0
    assert "the video is frozen" in quality_tables.failures([record])


def test_file_of_another_length_counts_as_wrong(tmp_path):
    generate, read = scripted(lambda task: rendered(task)[:-1])
    (record,) = measure(make_tasks(RUN, 1, 1), tmp_path, generate, read, keep=False)
    assert not any(record.right.values())


def test_other_errors_end_the_measurement(tmp_path):
    generate, read = scripted(refuse(ModelLoadError("no weights")))
    with pytest.raises(ModelLoadError):
        list(measure(make_tasks(RUN, 1, 1), tmp_path, generate, read, keep=False))


# What is printed and written


def test_summary_tells_trained_and_held_out_apart():
    lines = quality_tables.summary(records(wrong=54)).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["all", "trained", "held"]
    assert lines[1].split() == ["all", "216", "100.0", "100.0", "100.0", "75.0", "75.0", "0.90"]
    assert lines[2].split()[1] == "180"
    assert lines[3].split()[2] == "36"


def test_colour_table_has_a_row_for_each_colour():
    lines = quality_tables.colour_table(records(wrong=36)).splitlines()
    assert len(lines) == 7
    assert lines[1].split("  ")[-1].strip() == "0 / 0 (12)"
    assert lines[2].split("  ")[-1].strip() == "100 / 100 (12)"


def test_failures_name_prompt_and_seed():
    text = quality_tables.failures(records(wrong=1))
    assert "1 of 216 wrong" in text
    assert "seed 0, 144x80: 'a red circle moving left on a black background'" in text
    assert "wrong: shape square; IoU 0.90" in text


def test_text_fits_80_columns():
    made = records(wrong=216)
    for text in (quality_tables.summary(made), quality_tables.colour_table(made), quality_tables.failures(made)):
        assert max(map(len, text.splitlines())) <= 80


def test_sheet_shows_stills_of_every_colour_and_shape():
    made = records(stills=np.full((4, 80, 144, 3), 77, np.uint8))
    pixels = np.asarray(contact_sheet(made))
    shown = (pixels == 77).all(axis=-1).sum()
    assert shown == pytest.approx(18 * 4 * 80 * 144, rel=0.01)


def test_sheet_has_room_for_missing_videos():
    made = [Record(r.task, None, "refused") for r in records()[:1]]
    assert contact_sheet(made).size[0] > 0
    assert contact_sheet([]).size[0] > 0


def test_whole_command_with_a_stand_in(tmp_path, capsys):
    output, sheet = tmp_path / "results.json", tmp_path / "sheet.png"
    arguments = ["--steps", "8", "--frames", "17", "--limit", "2", "--output", str(output), "--sheet", str(sheet)]
    tiny_quality.run_plan(tiny_quality.parse(arguments), *scripted(), tmp_path)
    content = json.loads(output.read_text())
    assert len(content["records"]) == 4  # two runs
    assert content["records"][0]["right"]["all"] is True
    assert content["records"][0]["reading"]["iou"] > 0.9
    assert content["records"][0]["task"]["run"] == {"steps": 8, "frames": 17, "orientation": "landscape"}
    assert sheet.stat().st_size > 1000
    assert "== 8 steps, 17 frames, portrait: 2 videos" in capsys.readouterr().out


# Prompts with parts left out


def test_a_word_that_the_prompt_does_not_say_may_be_any():
    combination = combinations()[0]
    other = Reading("navy", "white", "down", "triangle", 0.97, 0.2, 0.0, True)
    assert judge(other, combination, ()) == dict.fromkeys(WORDS, True)
    assert judge(other, combination, ("colour",))["colour"] is False


def test_a_shape_that_the_prompt_does_not_say_has_to_be_whole():
    dented = Reading("navy", "white", "down", "triangle", 0.80, 0.2, 0.0, True)
    assert judge(dented, combinations()[0], ())["shape"] is False


def test_partial_tasks_say_what_their_prompt_keeps():
    for task in make_tasks(RUN, 1, partial=True):
        assert 0 <= len(task.said) <= 3
        assert ("colour" in task.said) == (task.combination.colour in task.prompt.lower().replace("navy blue", "navy"))


def test_the_worst_twentieth_and_the_strongest_ghost_are_printed():
    made = [Reading("black", "red", "left", "circle", iou, 0.2, 0.0, True, ghost) for iou, ghost in
            [*[(0.98, 3.0)] * 95, *[(0.5, 12.0)] * 5]]  # fmt: skip
    every = [Record(Task(RUN, combinations()[0], "", LANDSCAPE, 0), reading) for reading in made]
    said = quality_tables.outlines(every)
    assert "mean IoU 0.956" in said
    assert "strongest ghost 12 levels" in said


def test_videos_with_colour_off_the_path_are_counted():
    combination, seen = combinations()[0], Reading("black", "red", "left", "circle", 0.97, 0.2, 0.0, True)
    every = [
        Record(Task(RUN, combination, "", LANDSCAPE, 0), replace(seen, off_path_levels=levels))
        for levels in (3.0, 8.0, 8.1)
    ]
    said = quality_tables.outlines(every)
    assert "at most 8 levels from the background; 1 of 3 videos above 8" in said
    assert max(map(len, said.splitlines())) <= 80


def test_partial_summary_judges_what_was_said_and_a_whole_shape():
    combination = combinations()[0]  # a red circle
    whole = Reading(combination.background, "green", combination.direction, "square", 0.9, 0.2, 0.0, True)
    said = ("direction", "background")
    every = [
        Record(Task(RUN, combination, "", LANDSCAPE, 0, said, "partial"), whole),
        Record(Task(RUN, combination, "", LANDSCAPE, 1, (*said, "shape"), "partial"), whole),
        Record(Task(RUN, combination, "", LANDSCAPE, 2, said, "partial"), replace(whole, iou=0.7)),
    ]
    head, row, *_ = quality_tables.summary(every).splitlines()
    assert head.split() == ["n", "colour", "direction", "background", "shape", "whole", "said", "all", "IoU"]
    assert row.split() == ["all", "3", "-", "100.0", "100.0", "0.0", "66.7", "33.3", "33.3", "0.83"]
    assert max(len(head), len(row)) <= 80


def test_what_a_partial_prompt_leaves_open_counts_in_all_alone():
    combination = combinations()[0]
    still = Reading(combination.background, combination.colour, None, "square", 0.9, 0.2, 0.0, True)
    right = Record(Task(RUN, combination, "", LANDSCAPE, 0, ("colour",), "partial"), still).right
    assert (right["said"], right["all"]) == (True, False)


def test_colour_table_has_a_dash_for_what_was_never_said():
    combination = combinations()[0]
    seen = Reading(combination.background, combination.colour, combination.direction, "square", 0.9, 0.2, 0.0, True)
    made = [Record(Task(RUN, combination, "", LANDSCAPE, 0, ("colour",), "partial"), seen)]
    assert "100 / - (1)" in quality_tables.colour_table(made)
