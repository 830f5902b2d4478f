"""The gate: which videos are rejected."""

from __future__ import annotations

import numpy as np
import pytest

from hunyuan_local.errors import InvalidOutputError
from hunyuan_local.frame_checks import FrameGate


def judge(frames: np.ndarray) -> None:
    gate = FrameGate()
    gate.check(frames[:2])
    gate.check(frames[2:])
    gate.finish()


def moving() -> np.ndarray:
    frames = np.full((5, 16, 16, 3), 40, np.uint8)
    for index, frame in enumerate(frames):
        frame[4:8, index : index + 4] = 200
    return frames


def test_a_moving_picture_passes() -> None:
    judge(moving())


def test_a_dark_moving_picture_passes() -> None:
    judge((moving() // 16).astype(np.uint8))


def test_a_single_frame_is_not_frozen() -> None:
    judge(moving()[:1])


def test_black_is_refused() -> None:
    with pytest.raises(InvalidOutputError, match="black"):
        judge(np.random.default_rng(0).integers(0, 7, (5, 16, 16, 3), dtype=np.uint8))


def test_one_plain_colour_is_refused() -> None:
    with pytest.raises(InvalidOutputError, match="single colour"):
        judge(np.full((5, 16, 16, 3), (200, 40, 90), np.uint8))


def test_plain_frames_that_change_are_refused() -> None:
    frames = np.stack([np.full((16, 16, 3), 40 * i, np.uint8) for i in range(5)])
    with pytest.raises(InvalidOutputError, match="single colour"):
        judge(frames)


def test_a_frozen_video_is_refused() -> None:
    with pytest.raises(InvalidOutputError, match="frozen"):
        judge(np.repeat(moving()[:1], 5, axis=0))


def test_a_pixel_that_is_darker_by_one_level_is_no_change() -> None:
    frames = np.repeat(moving()[:1], 5, axis=0)
    frames[1:, 0, 0] -= 1
    with pytest.raises(InvalidOutputError, match="frozen"):
        judge(frames)


def test_a_change_between_two_pieces_is_seen() -> None:
    frames = np.repeat(moving()[:1], 5, axis=0)
    frames[2:, 0, 0] = 255
    judge(frames)
