"""The judge of the built-in checkpoint's videos: correct clips are recognised, wrong ones are rejected."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from shape_reading import MAX_OFF_PATH_LEVELS, MIN_IOU, judge, read_clip, shrink
from tiny.world import (
    BACKGROUNDS,
    COLOURS,
    LANDSCAPE,
    PORTRAIT,
    Combination,
    combinations,
    coverage,
    render,
    sample_scene,
)

from hunyuan_local.video import VideoWriter, read_frames

RED_CIRCLE = Combination("red", "circle", "right", "black")
# Little contrast, or contrast that is mostly in the halved chroma of an mp4.
HARD = [
    Combination(colour, shape, direction, background)
    for colour, background in (("green", "grey"), ("purple", "grey"), ("blue", "navy"), ("white", "grey"))
    for shape, direction in (("triangle", "up"), ("square", "left"))
]


def to_uint8(clip: np.ndarray) -> np.ndarray:
    return np.clip(np.round(clip * 255), 0, 255).astype(np.uint8)


def sample(count: int) -> list[Combination]:
    every = combinations()
    return [every[i] for i in np.random.default_rng(5).permutation(len(every))[:count]]


def scene_of(combination: Combination, seed: int = 0, frames: int = 17) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return render(sample_scene(rng, combination, PORTRAIT if seed % 2 else LANDSCAPE, frames))


def drawn(mask: Callable[[int], np.ndarray], frames: int = 17) -> np.ndarray:
    """A red object on black, 144x80, from a mask for each frame."""
    red, black = np.array(COLOURS["red"]) / 255, np.array(BACKGROUNDS["black"]) / 255
    return to_uint8(black + np.stack([mask(f) for f in range(frames)])[..., None] * (red - black))


def circle(x: float, y: float = 40, radius: float = 13) -> np.ndarray:
    return coverage("circle", (x, y), radius, LANDSCAPE)


def all_right(frames: np.ndarray, combination: Combination) -> bool:
    return all(judge(read_clip(frames), combination).values())


def test_clean_clips():
    wrong = [c for i, c in enumerate(sample(6)) if not all_right(to_uint8(scene_of(c, i)), c)]
    assert not wrong


def test_blurred_and_noisy_clips():
    rng = np.random.default_rng(2)
    wrong = []
    for i, combination in enumerate(sample(4) + HARD):
        clip = scene_of(combination, i)
        for axis in (1, 2):
            clip = (np.roll(clip, 1, axis) + 2 * clip + np.roll(clip, -1, axis)) / 4
        if not all_right(to_uint8(clip + rng.normal(0, 8 / 255, clip.shape)), combination):
            wrong.append(combination)
    assert not wrong


def test_clips_from_mp4_files(starts_process, tmp_path):
    wrong = []
    for i, combination in enumerate(sample(4) + HARD):
        frames = to_uint8(scene_of(combination, i))
        path = tmp_path / f"{i}.mp4"
        with VideoWriter(path, frame_size=(frames.shape[2], frames.shape[1]), fps=24) as writer:
            writer.write(frames)
            writer.finish()
        if not all_right(np.stack(list(read_frames(path))), combination):
            wrong.append(combination)
    assert not wrong


@pytest.mark.parametrize("size", [(720, 1280), (1280, 720)])
def test_large_clips(size):
    combination = Combination("green", "square", "down", "grey")
    frames = to_uint8(scene_of(combination, seed=int(size[0] > size[1]), frames=5))
    rows, columns = (np.arange(new) * old // new for new, old in zip(size, frames.shape[1:3], strict=True))
    large = frames[:, rows][:, :, columns]
    assert large.shape == (5, *size, 3)
    assert all_right(large, combination)


def test_shrinking_keeps_every_areas_mean():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 200, 360, 3), dtype=np.uint8)
    small = shrink(frames)
    assert small.shape == (2, 80, 144, 3)
    np.testing.assert_allclose(small[:, :2, :2].mean((1, 2)), frames[:, :5, :5].mean((1, 2)), atol=0.1)
    np.testing.assert_allclose(small.mean((1, 2)), frames.mean((1, 2)), atol=0.1)


@pytest.mark.parametrize(
    ("field", "value"),
    [("colour", "purple"), ("shape", "square"), ("shape", "triangle"), ("direction", "left"), ("background", "navy")],
)
def test_one_wrong_word_is_wrong_and_the_others_stay_right(field, value):
    reading = read_clip(drawn(lambda f: circle(50 + f)))
    verdict = judge(reading, replace(RED_CIRCLE, **{field: value}))
    assert verdict == {word: word != field for word in verdict}


def test_every_pair_of_shapes_is_distinguished():
    for shape in ("circle", "square", "triangle"):
        reading = read_clip(to_uint8(scene_of(replace(RED_CIRCLE, shape=shape))))
        assert reading.shape == shape
        assert reading.margin > 0.1


@pytest.mark.parametrize(
    "mask",
    [
        pytest.param(lambda f: np.maximum(circle(45 + f), circle(56 + f, 44)), id="blob"),
        pytest.param(lambda f: np.maximum(circle(40 + f), circle(100)), id="second object"),
        pytest.param(lambda f: np.maximum(circle(40 + f), 0.4 * circle(100)), id="ghost"),
        pytest.param(lambda f: circle(50 + f) - circle(50 + f, radius=8), id="ring"),
        pytest.param(lambda f: circle(50 + f) * (np.arange(80)[:, None] < 40), id="half"),
        pytest.param(lambda f: circle(50 + f) * (f != 7), id="gone in one frame"),
    ],
)
def test_what_is_no_shape_is_wrong(mask):
    assert not judge(read_clip(drawn(mask)), RED_CIRCLE)["shape"]


def test_empty_background_has_no_object():
    reading = read_clip(drawn(lambda f: np.zeros((80, 144))))
    assert (reading.background, reading.colour, reading.shape, reading.found) == ("black", None, None, False)


def test_static_object_has_no_direction():
    reading = read_clip(drawn(lambda f: circle(60)))
    assert (reading.shape, reading.direction) == ("circle", None)


def test_slanted_path_has_no_direction():
    assert read_clip(drawn(lambda f: circle(50 + f, 30 + f))).direction is None


def test_colour_that_changes_has_no_name():
    frames = drawn(lambda f: circle(50 + f))
    frames[9:] = frames[9:, :, :, [2, 1, 0]]
    assert read_clip(frames).colour is None


def test_pale_colour_has_no_name():
    assert read_clip(drawn(lambda f: 0.5 * circle(50 + f))).colour is None


def test_ghost_is_measured_whatever_its_colour():
    frames = drawn(lambda f: circle(40 + f))
    assert read_clip(frames).ghost == 0
    frames[:, 10:20, 100:120] = (0, 0, 160)  # a blue that is not on the line from black to red
    reading = read_clip(frames)
    assert 0.2 < reading.ghost < 0.6
    assert reading.iou >= MIN_IOU


def test_noise_alone_is_wrong():
    frames = np.random.default_rng(1).integers(0, 256, (5, 80, 144, 3), dtype=np.uint8)
    reading = read_clip(frames)
    assert reading.colour is None
    assert reading.iou < MIN_IOU


def test_missing_clip_is_wrong_in_all():
    assert not any(judge(None, RED_CIRCLE).values())


def test_a_ghost_fainter_than_the_noise_limit_is_measured_in_levels():
    faint = 12.0
    clip = drawn(lambda f: circle(50 + f)).astype(np.float32)
    clip[..., 1] += faint * np.stack([circle(110)] * 17)
    reading = read_clip(to_uint8(clip / 255))
    assert reading.ghost == 0
    assert faint - 1 <= reading.ghost_levels <= faint + 1


def test_colour_off_the_path_is_measured_in_every_frame():
    frames = drawn(lambda f: circle(40 + f))
    assert read_clip(frames).off_path_levels == 0
    frames[6, 10:20, 110:120, 2] += 12  # in a frame whose outline is not fitted
    reading = read_clip(frames)
    assert reading.off_path_levels == 12
    assert reading.ghost_levels == 0


def test_a_trace_on_the_path_is_not_off_the_path():
    frames = drawn(lambda f: circle(40 + f))
    frames[:, 38:42, 30:34, 2] += 12  # behind the object
    reading = read_clip(frames)
    assert reading.off_path_levels == 0
    assert reading.ghost_levels > 8


def test_a_background_off_the_true_colour_is_off_the_path():
    frames = drawn(lambda f: circle(50 + f)) + np.uint8(9)
    reading = read_clip(frames)
    assert reading.background == "black"
    assert reading.off_path_levels == 9


@pytest.mark.parametrize("orientation", [0, 1])
def test_an_encoded_clip_has_no_ghost_off_its_path(starts_process, tmp_path, orientation):
    frames = to_uint8(scene_of(Combination("yellow", "triangle", "right", "navy"), orientation))
    with VideoWriter(tmp_path / "a.mp4", frame_size=(frames.shape[2], frames.shape[1]), fps=24) as writer:
        writer.write(frames)
        writer.finish()
    assert 0 < read_clip(np.stack(list(read_frames(tmp_path / "a.mp4")))).off_path_levels <= MAX_OFF_PATH_LEVELS
