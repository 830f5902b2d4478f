"""Which frames of a video are checked, and the consequences of their scores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from pydantic import ValidationError

from hunyuan_local.backends.safety_check import Inspection, evenly_spaced, finish_or_note, flag_note, prepare
from hunyuan_local.config import SafetyConfig
from hunyuan_local.errors import ConfigError, ContentBlockedError, InvalidOutputError, ModelLoadError
from hunyuan_local.schema import SafetyVerdict

Check = Callable[..., SafetyConfig]
Clip = Callable[..., np.ndarray]


def inspect(config: SafetyConfig, frames: np.ndarray, announced: int | None = None, piece: int = 2) -> SafetyVerdict:
    inspection = Inspection(config, len(frames) if announced is None else announced)
    for start in range(0, len(frames), piece):
        inspection.add(frames[start : start + piece])
    return inspection.finish()


def unread(mode: str = "flag", **more: object) -> SafetyConfig:
    """The config of a check whose classifier does not exist."""
    return SafetyConfig(**({"mode": mode, "model_id": "/nowhere/none", "labels": ("red",)} | more))


@pytest.fixture
def spoilt(clip: Clip) -> Callable[[int], np.ndarray]:
    """Creates nine frames of which only the one with this number is red."""
    return lambda red: clip(*("red" if number == red else "blue" for number in range(9)))


# Which frames are sampled


@pytest.mark.parametrize(
    ("num_frames", "count", "numbers"),
    [
        (5, 8, [0, 1, 2, 3, 4]),
        (9, 3, [0, 4, 8]),
        (129, 8, [0, 18, 37, 55, 73, 91, 110, 128]),
        (5, 2, [0, 4]),
        (5, 1, [2]),
        (1, 8, [0]),
        (0, 8, []),
    ],
)
def test_they_are_evenly_spaced(num_frames: int, count: int, numbers: list[int]) -> None:
    assert evenly_spaced(num_frames, count) == numbers


@pytest.mark.parametrize("red", [0, 4, 8])
def test_a_frame_that_is_looked_at_is_found(check: Check, spoilt: Callable[[int], np.ndarray], red: int) -> None:
    verdict = inspect(check(frames=3), spoilt(red))
    assert (verdict.flagged, verdict.frame, verdict.frames) == (True, red, 3)


def test_a_frame_between_them_is_not(check: Check, spoilt: Callable[[int], np.ndarray]) -> None:
    assert not inspect(check(frames=3), spoilt(3)).flagged


@pytest.mark.parametrize("piece", [1, 4, 9])
def test_it_does_not_matter_in_which_pieces_they_come(
    check: Check, spoilt: Callable[[int], np.ndarray], piece: int
) -> None:
    frames = spoilt(4)
    assert inspect(check(frames=3), frames, piece=piece) == inspect(check(frames=3), frames)


@pytest.mark.parametrize("announced", [7, 12])
def test_the_last_frame_is_checked_even_if_the_frame_count_is_wrong(
    check: Check, spoilt: Callable[[int], np.ndarray], announced: int
) -> None:
    assert inspect(check(frames=3), spoilt(8), announced).frame == 8


def test_they_are_copied(check: Check, clip: Clip) -> None:
    frames = clip("red", "red")
    inspection = Inspection(check(), 2)
    inspection.add(frames)
    frames[:] = clip("blue", "blue")
    assert inspection.finish().flagged


# Consequences


def test_a_red_clip_is_flagged(check: Check, clip: Clip, classifier: object) -> None:
    verdict = inspect(check(), clip("red", "red", "red"))
    assert (verdict.flagged, verdict.label, verdict.threshold, verdict.model) == (True, "red", 0.5, str(classifier))


def test_a_blue_clip_is_not_and_that_is_reported(check: Check, clip: Clip) -> None:
    verdict = inspect(check("block"), clip("blue", "blue"))
    assert (verdict.flagged, verdict.score < 0.5) == (False, True)


def test_the_highest_score_of_all_frames_is_reported(check: Check, clip: Clip) -> None:
    verdict = inspect(check(labels=("Red", "BLUE")), clip("blue", "red"))
    assert (verdict.score > 0.5, verdict.label) == (True, ("blue", "red")[verdict.frame])


def test_from_the_threshold_on_a_frame_counts(check: Check, clip: Clip) -> None:
    score = inspect(check(), clip("red")).score
    flagged = [inspect(check(threshold=t), clip("red")).flagged for t in (score, np.nextafter(score, 2))]
    assert flagged == [True, False]


def test_a_check_that_is_off_says_nothing(clip: Clip) -> None:
    assert inspect(unread("off"), clip("red")) is None


@pytest.fixture
def blocked(check: Check, clip: Clip) -> ContentBlockedError:
    with pytest.raises(ContentBlockedError) as caught:
        inspect(check("block", threshold=0.625), clip("blue", "red"))
    return caught.value


@pytest.mark.parametrize("says", ["frame 1", "'red'", "0.625", "no file is kept", "the seed", "--safety flag"])
def test_why_a_video_is_withheld(blocked: ContentBlockedError, says: str) -> None:
    assert says in str(blocked)


def test_who_has_withheld_it(blocked: ContentBlockedError, classifier: object) -> None:
    assert str(classifier) in str(blocked)


def test_the_error_has_the_verdict(blocked: ContentBlockedError) -> None:
    assert blocked.verdict.flagged and f"{blocked.verdict.score:.3f}" in str(blocked)


def test_a_note_names_the_frame_and_its_score(check: Check, clip: Clip) -> None:
    verdict = inspect(check(), clip("blue", "red"))
    assert f"labels frame 1 'red' with a score of {verdict.score:.3f}" in flag_note(verdict)


def test_a_video_without_frames_does_not_pass(check: Check) -> None:
    with pytest.raises(InvalidOutputError, match="no frame"):
        Inspection(check(), 0).finish()


# Checks before generating


def test_a_missing_classifier_is_refused() -> None:
    with pytest.raises(ModelLoadError, match="none"):
        prepare(unread(), print)


def test_labels_that_it_does_not_have_are_refused(check: Check) -> None:
    with pytest.raises(ConfigError, match="blue, red"):
        prepare(check(labels=("nsfw",)), print)


def test_without_a_check_no_classifier_is_needed() -> None:
    prepare(unread("off"), print)


@pytest.mark.parametrize("value", [{"mode": "strict"}, {"threshold": 1.5}, {"frames": 0}, {"label": "red"}])
def test_other_values_are_no_config(value: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(value))):
        unread(**value)


# --- A classifier that fails after the work is done ---


def fail() -> SafetyVerdict:
    raise RuntimeError("the classifier broke\nits traceback")


def test_a_check_that_only_flags_does_not_lose_the_video() -> None:
    notes: list[str] = []
    assert finish_or_note(fail, "flag", notes.append) is None
    assert notes == ["the safety check was not made: the classifier failed: RuntimeError: the classifier broke"]


def test_a_check_that_blocks_lets_no_unchecked_video_through() -> None:
    with pytest.raises(RuntimeError, match="the classifier broke"):
        finish_or_note(fail, "block", print)
