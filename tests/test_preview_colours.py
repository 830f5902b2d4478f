"""The benchmark of preview colours: what a rendered preview shows, and the real previews of the built-in model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import preview_colours
from preview_colours import Seen, see
from quality_tasks import Run, Task, make_tasks
from tiny.world import COLOURS, render, sample_scene

from hunyuan_local import get_backend

RUN = Run(8, 17, "alternating")


def preview_of(task: Task, channels: np.ndarray | None = None) -> np.ndarray:
    """An ideal preview: four frames side by side, without detail below 8 pixels.

    ``channels`` mixes red, green and blue as a poor map from latents does.
    """
    clip = render(sample_scene(np.random.default_rng(task.seed), task.combination, task.size, task.run.frames))
    frames = clip[[0, 5, 10, 16]]
    count, height, width = frames.shape[:3]
    cells = frames.reshape(count, height // 8, 8, width // 8, 8, 3).mean(axis=(2, 4)).repeat(8, 1).repeat(8, 2)
    mixed = cells if channels is None else cells @ channels
    return np.round(np.concatenate(list(mixed), axis=1) * 255).astype(np.uint8)


def seen_of(colour: str, channels: np.ndarray) -> list[Seen]:
    return [
        see(t, preview_of(t, channels)) for t in make_tasks(RUN, seed=1, limit=72) if t.combination.colour == colour
    ]


def test_ideal_previews_show_the_right_colour():
    tasks = make_tasks(RUN, seed=1, limit=72)
    assert {t.combination.colour for t in tasks} == set(COLOURS)
    assert not [t.combination for t in tasks if not see(t, preview_of(t)).right]


def test_previews_with_red_and_green_exchanged_are_wrong():
    for colour, shown in (("red", "green"), ("green", "red")):
        assert {s.colour for s in seen_of(colour, np.eye(3)[[1, 0, 2]])} == {shown}


def test_a_pure_colour_is_near_and_olive_is_not():
    pure = seen_of("red", np.eye(3))
    olive = seen_of("red", np.array([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]]))
    assert [s.near for s in pure].count(True) >= len(pure) - 1
    assert any(s.right for s in olive)
    assert not any(s.near for s in olive)


def test_an_empty_preview_shows_no_colour():
    assert see(make_tasks(RUN, seed=1, limit=1)[0], np.full((80, 576, 3), 120, np.uint8)).colour is None


def test_table_counts_by_colour_and_background():
    tasks = make_tasks(RUN, seed=1)
    seen = [Seen(t, "yellow" if t.combination.colour == "red" else t.combination.colour, 9.0) for t in tasks]
    lines = preview_colours.table(seen).splitlines()
    assert lines[1].split() == ["red", "0.0", "(12)", "0.0", "(12)", "0.0", "(12)", "yellow", "36"]
    assert lines[2].split() == ["green", *["100.0", "(12)"] * 3]
    assert lines[-2] == "right: 83.3 (216); held out of training: 83.3 (36)"
    assert lines[-1] == "right and within 60 levels of the colour: 83.3"
    assert max(map(len, lines)) <= 80


def test_too_few_steps_are_refused(capsys):
    with pytest.raises(SystemExit):
        preview_colours.parse(["--steps", "3"])
    assert "--steps 3: must be at least 4" in capsys.readouterr().err


def test_the_preview_at_half_of_the_steps_is_read(loads_model, tmp_path):
    tasks = make_tasks(Run(4, 5, "landscape"), seed=1, limit=1)
    (seen,) = preview_colours.measure(tasks, tmp_path, preview_colours.preview_with(get_backend("local", model="tiny")))
    assert seen.colour in COLOURS
    assert not list(tmp_path.glob("*.mp4"))
    assert json.dumps(seen.as_json())
