"""The quality benchmark for image to video, without a model: its pictures and prompts, and what counts as kept."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import image_models
import numpy as np
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import quality_tables
import tiny_quality
from quality_records import Record, measure, psnr, request_of
from quality_sheet import contact_sheet
from quality_tasks import Run, Task, make_picture_tasks
from shape_reading import Reading
from tiny.world import BACKGROUNDS, COLOURS, LANDSCAPE, PORTRAIT, SHAPES, combinations, is_held_out, render

from hunyuan_local.provenance import read_provenance

RUN = Run(8, 17, "landscape")


def rendered(task: Task) -> np.ndarray:
    """The clip that the picture begins and the prompt asks for."""
    assert task.scene is not None
    return np.round(render(task.scene) * 255).astype(np.uint8)


def repainted(task: Task, **changes: str) -> np.ndarray:
    """The clip with another colour, shape, direction or background than it should have."""
    assert task.scene is not None
    scene = replace(task.scene, combination=replace(task.combination, **changes))
    return np.round(render(scene) * 255).astype(np.uint8)


def write_nothing(task: Task, path: Path) -> Path:
    path.write_bytes(b"")
    return path


def judged(task: Task, frames: np.ndarray, folder: Path) -> Record:
    """The record of a task whose generation gave these frames."""

    (record,) = measure([task], folder, write_nothing, lambda path: frames, keep=False)
    return record


def a_task(**known: str) -> Task:
    """The first task of these words, whose object goes right, so that its reversal goes left."""
    known = {"direction": "right"} | known
    return next(
        t for t in make_picture_tasks(RUN, seed=1) if all(getattr(t.combination, k) == v for k, v in known.items())
    )


def records(psnr_db: float = 40.0) -> list[Record]:
    made = []
    for task in make_picture_tasks(RUN, seed=1):
        c = task.combination
        reading = Reading(c.background, c.colour, c.direction, c.shape, 0.9, 0.2, 0.0, True)
        made.append(Record(task, reading, psnr_db=psnr_db))
    return made


# Pictures and prompts


def test_tasks_cover_all_combinations_once_each_with_a_new_picture():
    tasks = make_picture_tasks(Run(2, 17, "alternating"), seed=1)
    assert {t.combination for t in tasks} == set(combinations())
    assert len({t.seed for t in tasks}) == len({t.scene for t in tasks}) == len(tasks) == 216
    assert Counter(t.size for t in tasks) == {LANDSCAPE: 108, PORTRAIT: 108}
    assert sum(is_held_out(t.combination) for t in tasks) == 36


def test_pictures_depend_on_the_seed_and_the_run_alone():
    tasks = make_picture_tasks(RUN, seed=1)
    assert make_picture_tasks(RUN, seed=1, limit=5) == tasks[:5]
    assert {t.scene for t in tasks}.isdisjoint(t.scene for t in make_picture_tasks(RUN, seed=2))


def test_a_picture_is_the_first_frame_of_what_should_follow():
    task = make_picture_tasks(RUN, seed=1, limit=1)[0]
    assert task.picture is not None
    assert np.array_equal(task.picture, rendered(task)[0])


def test_places_of_shapes_are_spread_over_the_picture():
    lefts = [t.scene.centre(0)[0] for t in make_picture_tasks(RUN, seed=1) if t.combination.direction == "up"]
    assert min(lefts) < LANDSCAPE[0] / 4
    assert max(lefts) > LANDSCAPE[0] * 3 / 4


def test_half_of_the_prompts_give_the_direction_alone():
    tasks = make_picture_tasks(RUN, seed=1)
    bare = [t for t in tasks if not any(word in t.prompt.lower() for word in (*COLOURS, *SHAPES))]
    assert {t.seed for t in bare} == {t.seed for t in tasks if t.wording == "direction"}
    assert 80 <= len(bare) <= 136


def test_contradicting_prompts_name_something_else_than_the_picture():
    tasks = make_picture_tasks(RUN, seed=1, contradict=True)
    assert {t.wording for t in tasks} == {"contradiction"}
    for task in tasks:
        said = task.prompt.lower().replace("gray", "grey").replace("navy blue", "navy")
        shown = task.combination
        assert not all(word in said for word in (shown.colour, shown.shape, shown.background)), task.prompt


def test_the_request_has_the_picture_unchanged():
    task = make_picture_tasks(RUN, seed=1, limit=1)[0]
    request = request_of(task)
    assert request.image is not None
    assert (request.width, request.height) == request.image.size == task.size
    assert np.array_equal(np.asarray(request.image.pixels()), task.picture)


# What counts


def test_the_clip_that_the_picture_begins_is_right(tmp_path):
    for task in make_picture_tasks(RUN, seed=1, limit=3):
        record = judged(task, rendered(task), tmp_path)
        assert all(record.right.values()), task
        assert record.psnr_db == pytest.approx(98, abs=0.2)


@pytest.mark.parametrize("word", ["colour", "shape", "background"])
def test_what_the_prompt_says_against_the_picture_is_wrong(word, tmp_path):
    task = a_task()
    other = {"colour": COLOURS, "shape": SHAPES, "background": BACKGROUNDS}[word]
    changed = next(value for value in other if value != getattr(task.combination, word))
    right = judged(task, repainted(task, **{word: changed}), tmp_path).right
    assert {part for part in ("colour", "shape", "background", "direction") if not right[part]} == {word}
    assert not right["all"]


def test_a_shape_that_goes_the_other_way_is_wrong(tmp_path):
    task = a_task()
    right = judged(task, rendered(task)[::-1], tmp_path).right
    assert {part for part in right if not right[part]} == {"direction", "1st frame", "all"}


def test_a_shape_that_begins_elsewhere_does_not_keep_the_picture(tmp_path):
    task = a_task()
    record = judged(task, np.roll(rendered(task), 6, axis=1), tmp_path)
    assert {part for part in record.right if not record.right[part]} == {"1st frame", "all"}


def test_a_slightly_noisy_first_frame_keeps_the_picture(tmp_path):
    task = a_task()
    frames = rendered(task).astype(float) + np.random.default_rng(0).normal(0, 6, (17, 80, 144, 3))
    record = judged(task, frames.clip(0, 255).astype(np.uint8), tmp_path)
    assert record.right["1st frame"]
    assert 30 < record.psnr_db < 35


def test_a_missing_video_keeps_nothing():
    record = Record(a_task(), None, "refused")
    assert not any(record.right.values())


def test_psnr_of_a_known_difference():
    picture = np.zeros((4, 4, 3), np.uint8)
    assert psnr(picture + np.uint8(255), picture) == 0
    assert psnr(picture + np.uint8(8), picture) == pytest.approx(20 * np.log10(255 / 8), abs=0.01)


# What is printed and written


def test_summary_has_columns_for_the_first_frame_and_rows_for_the_wordings():
    lines = quality_tables.summary(records(33.25)).splitlines()
    assert lines[0].split()[-6:] == ["shape", "1st", "frame", "all", "dB", "IoU"]
    assert [line.split()[0] for line in lines[1:]] == ["all", "trained", "held", "caption", "direction"]
    assert lines[1].split()[1:] == ["216", *["100.0"] * 6, "33.2", "0.90"]


def test_targets_name_what_is_missed():
    said = " ".join(quality_tables.picture_targets(records(29.0)).split())
    assert "direction 100.0 of 98 %, colour 100.0 of 98 %, shape 100.0 of 95 %, background 100.0 of 98 %" in said
    assert "first frame 29.0 of 30 dB (missed); worst first frame 29.0 dB" in said


def test_failures_describe_the_picture():
    made = records(21.5)[:1]
    text = quality_tables.failures(made)
    assert "wrong: first frame 21.5 dB" in text
    shown = made[0].task.combination
    assert f"picture: {shown.colour} {shown.shape} on {shown.background}, should go {shown.direction}" in text


def test_text_fits_80_columns():
    made = records(21.5)
    texts = [part(made) for part in (quality_tables.summary, quality_tables.picture_targets, quality_tables.failures)]
    assert max(len(line) for text in texts for line in text.splitlines()) <= 80


def test_sheet_shows_the_picture_even_without_a_video():
    task = a_task(colour="green", background="navy")
    pixels = np.asarray(contact_sheet([Record(task, None, "refused")]))
    green = (task.picture == COLOURS["green"]).all(axis=-1).sum()
    assert (pixels == COLOURS["green"]).all(axis=-1).sum() == green > 0


def test_whole_command_on_rendered_clips(tmp_path, capsys):
    clips = {}

    def generate(task: Task, path: Path) -> Path:
        clips[path] = rendered(task)
        return write_nothing(task, path)

    output = tmp_path / "results.json"
    options = tiny_quality.parse(["--steps", "2", "--limit", "2", "--contradict", "--output", str(output)])
    tiny_quality.run_plan(options, generate, clips.__getitem__, tmp_path, takes_image=True)
    (first, _) = json.loads(output.read_text())["records"]
    assert first["right"]["all"] is True
    assert first["first_frame_psnr_db"] > 90
    assert first["task"]["wording"] == "contradiction"
    assert first["task"]["scene"]["combination"] == first["task"]["combination"]
    assert "targets: direction 100.0 of 98 %" in capsys.readouterr().out


@pytest.mark.parametrize(("option", "takes_image"), [("--partial", True), ("--contradict", False)])
def test_wording_of_the_other_kind_of_model_is_refused(option, takes_image):
    with pytest.raises(SystemExit, match=option):
        tiny_quality.refuse_foreign_wording(tiny_quality.parse([option]), takes_image)


def test_a_model_that_takes_an_image_gets_the_picture(starts_process, loads_model, tmp_path, capsys):
    config = image_models.make_checkpoint(tmp_path / "model", "token_replace")
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    output = tmp_path / "results.json"
    asked = ["--steps", "1", "--frames", "5", "--limit", "1", "--keep", str(tmp_path), "--output", str(output)]
    tiny_quality.main(["--model", str(tmp_path / "toy.yaml"), *asked])
    (record,) = json.loads(output.read_text())["records"]
    assert record["error"] is None
    assert record["first_frame_psnr_db"] > 20
    (video,) = tmp_path.glob("*.mp4")
    drawn = make_picture_tasks(Run(1, 5, "alternating"), 2024, 1)[0]
    assert read_provenance(video).request.image == request_of(drawn).image
