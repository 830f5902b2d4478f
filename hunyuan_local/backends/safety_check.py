"""The safety check of a finished video: which frames are looked at, what a classifier says of them, what follows.

Knows nothing about jobs, nor about torch, which is imported only where a check is wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..config import SafetyConfig
from ..errors import ContentBlockedError, InvalidOutputError
from ..schema import SafetyVerdict
from ..video import read_frames


def prepare(config: SafetyConfig, on_note: Callable[[str], None]) -> None:
    """Load the classifier, if a check is wanted: before the work, so that a wrong name costs no video.

    Args:
        on_note: told of a download.

    Raises:
        ConfigError: Pillow is missing, or the classifier does not have the labels that count.
        ModelLoadError: the classifier is not there, or is none.
    """
    if config.mode == "off":
        return
    from ..pipeline.frame_classifier import load_classifier

    load_classifier(config.model_id, config.revision, on_note).check_labels(config.labels)


class Inspection:
    """The check of one video, told its frames as they come.

    It holds copies of those that are to be looked at: at 1280x720 2.8 MB each.

    Args:
        config: with the mode ``off`` nothing is kept and nothing is checked.
        num_frames: how many will come. If more or fewer do, the very last one is looked at all the same.
    """

    def __init__(self, config: SafetyConfig, num_frames: int):
        self._config, self._num_frames = config, num_frames
        self._wanted = frozenset(evenly_spaced(num_frames, config.frames))
        self._kept: dict[int, np.ndarray] = {}
        self._last: np.ndarray | None = None
        self._seen = 0

    def add(self, frames: np.ndarray) -> None:
        """Take the next frames, uint8 [n, height, width, 3]."""
        if self._config.mode == "off" or not len(frames):
            return
        for index, frame in enumerate(frames, self._seen):
            if index in self._wanted:
                self._kept[index] = frame.copy()
        self._seen += len(frames)
        self._last = frames[-1].copy()

    def finish(self) -> SafetyVerdict | None:
        """What the classifier says; None where no check is wanted.

        Raises:
            ContentBlockedError: the video is flagged, and the mode is ``block``.
            ModelLoadError: the classifier cannot be loaded, or gives no scores.
            InvalidOutputError: there was no frame.
        """
        if self._config.mode == "off":
            return None
        if self._last is None:
            raise InvalidOutputError("the video has no frame, so that it cannot be checked; no file is kept")
        if self._seen != self._num_frames:
            self._kept.setdefault(self._seen - 1, self._last)
        verdict = self._judge()
        if verdict.flagged and self._config.mode == "block":
            raise ContentBlockedError(
                f"the safety check withholds this video: {_finding(verdict)}; no file is kept; change the prompt or "
                "the seed, or have flagged videos delivered with --safety flag",
                verdict,
            )
        return verdict

    def _judge(self) -> SafetyVerdict:
        """The highest score of a label that counts, and where it is."""
        from ..pipeline.frame_classifier import load_classifier

        config, kept = self._config, sorted(self._kept.items())
        classifier = load_classifier(config.model_id, config.revision)
        classifier.check_labels(config.labels)
        counted = {label.casefold() for label in config.labels}
        found = [
            (score, index, label)
            for (index, _), scores in zip(kept, classifier.classify(np.stack([x for _, x in kept])), strict=True)
            for label, score in scores.items()
            if label.casefold() in counted
        ]
        score, index, label = max(found, key=lambda entry: entry[0])  # of equal ones the first
        return SafetyVerdict(
            flagged=score >= config.threshold,
            score=score,
            label=label,
            frame=index,
            threshold=config.threshold,
            frames=len(kept),
            model=config.model_id,
        )


def inspect_file(config: SafetyConfig, path: Path, num_frames: int) -> SafetyVerdict | None:
    """What the classifier says of the frames of a video file; see :meth:`Inspection.finish`.

    Raises:
        ContentBlockedError, InvalidOutputError, ModelLoadError: see :meth:`Inspection.finish`; the file stays.
        VideoError: the file cannot be read.
    """
    inspection = Inspection(config, num_frames)
    if config.mode != "off":
        for frame in read_frames(path):
            inspection.add(frame[None])
    return inspection.finish()


def evenly_spaced(num_frames: int, count: int) -> list[int]:
    """The numbers, from 0, of so many frames or of all if there are fewer: the first, the last, and between them.

    A single one is the middle one. Of a video without frames there is none.
    """
    if num_frames < 1:
        return []
    count = min(count, num_frames)
    if count == 1:
        return [(num_frames - 1) // 2]
    # Rounded to the nearest, in whole numbers.
    return [(2 * i * (num_frames - 1) + count - 1) // (2 * (count - 1)) for i in range(count)]


def flag_note(verdict: SafetyVerdict) -> str:
    """What the user is told of a flagged video that is delivered."""
    return f"the safety check flags this video: {_finding(verdict)}"


def _finding(verdict: SafetyVerdict) -> str:
    return (
        f"{verdict.model} gives frame {verdict.frame} the label {verdict.label!r} with a score of {verdict.score:.3f}, "
        f"and {verdict.threshold:g} is enough"
    )
