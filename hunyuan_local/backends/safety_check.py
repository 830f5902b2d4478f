"""The safety check of a finished video: selects frames, classifies them, and blocks or flags the video.

Does not depend on jobs. torch is imported only if a check is configured.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..config import SafetyConfig
from ..errors import ContentBlockedError, InvalidOutputError, VideoError, first_line
from ..pipeline.library_imports import importing
from ..schema import SafetyVerdict
from ..video import read_frames


def prepare(config: SafetyConfig, on_note: Callable[[str], None]) -> None:
    """Load the classifier if a check is configured. Call it before generating, so that a wrong name costs no video.

    Args:
        on_note: called when the classifier is downloaded.

    Raises:
        ConfigError: Pillow is missing, or the classifier does not have the configured labels.
        ModelLoadError: the classifier cannot be found, or the model is not an image classifier.
    """
    if config.mode == "off":
        return
    with importing():
        from ..pipeline.frame_classifier import load_classifier

    load_classifier(config.model_id, config.revision, on_note).check_labels(config.labels)


class Inspection:
    """The check of one video, fed with its frames as they are decoded.

    Keeps copies of the frames to classify, width * height * 3 bytes each: 2.8 MB at 1280x720.

    Args:
        config: with mode ``off``, no frames are kept and none are checked.
        num_frames: expected number of frames. If the actual number differs, the last frame is still checked.
    """

    def __init__(self, config: SafetyConfig, num_frames: int):
        self._config, self._num_frames = config, num_frames
        self._wanted = frozenset(evenly_spaced(num_frames, config.frames))
        self._kept: dict[int, np.ndarray] = {}
        self._last: np.ndarray | None = None
        self._seen = 0

    def add(self, frames: np.ndarray) -> None:
        """Add the next frames, uint8 [n, height, width, 3]."""
        if self._config.mode == "off" or not len(frames):
            return
        for index, frame in enumerate(frames, self._seen):
            if index in self._wanted:
                self._kept[index] = frame.copy()
        self._seen += len(frames)
        self._last = frames[-1].copy()

    def finish(self) -> SafetyVerdict | None:
        """Classify the kept frames; None if no check is configured.

        Raises:
            ContentBlockedError: the video is flagged, and the mode is ``block``.
            ModelLoadError: the classifier cannot be loaded, or returns no scores.
            InvalidOutputError: there were no frames.
        """
        if self._config.mode == "off":
            return None
        if self._last is None:
            raise InvalidOutputError("the video has no frames to check; no file is kept")
        if self._seen != self._num_frames:
            self._kept.setdefault(self._seen - 1, self._last)
        verdict = self._judge()
        if verdict.flagged and self._config.mode == "block":
            raise ContentBlockedError(
                f"the safety check blocked this video: {_finding(verdict)}; no file is kept; change the prompt or "
                "the seed, or use --safety flag to keep flagged videos",
                verdict,
            )
        return verdict

    def _judge(self) -> SafetyVerdict:
        """The verdict for the highest score of any configured label in any kept frame."""
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
        score, index, label = max(found, key=lambda entry: entry[0])  # the first of equal scores
        return SafetyVerdict(
            flagged=score >= config.threshold,
            score=score,
            label=label,
            frame=index,
            threshold=config.threshold,
            frames=len(kept),
            model=config.model_id,
        )


def finish_or_note(
    inspect: Callable[[], SafetyVerdict | None], mode: str, on_note: Callable[[str], None]
) -> SafetyVerdict | None:
    """The verdict of a finished video of this machine; a note and None if the classifier fails in the mode ``flag``.

    That mode only reports, so its failure must not lose the video. The mode ``block`` publishes no unchecked video.

    Args:
        inspect: :meth:`Inspection.finish`, or the like for a file.

    Raises:
        ContentBlockedError, InvalidOutputError: see :meth:`Inspection.finish`.
        Exception: the classifier failed in the mode ``block``.
    """
    try:
        return inspect()
    except (ContentBlockedError, InvalidOutputError, VideoError):
        raise
    except Exception as error:
        if mode == "block":
            raise
        on_note(unchecked_note(why_not_checked(error)))
        return None


def inspect_file(config: SafetyConfig, path: Path, num_frames: int) -> SafetyVerdict | None:
    """Run the safety check on the frames of a video file; see :meth:`Inspection.finish`.

    Raises:
        ContentBlockedError, InvalidOutputError, ModelLoadError: see :meth:`Inspection.finish`; the file is kept.
        VideoError: the file cannot be read.
    """
    inspection = Inspection(config, num_frames)
    if config.mode != "off":
        for frame in read_frames(path):
            inspection.add(frame[None])
    return inspection.finish()


def evenly_spaced(num_frames: int, count: int) -> list[int]:
    """Indices, from 0, of ``count`` evenly spaced frames including the first and the last; all frames if fewer.

    A count of 1 selects the middle frame. A video without frames has no indices.
    """
    if num_frames < 1:
        return []
    count = min(count, num_frames)
    if count == 1:
        return [(num_frames - 1) // 2]
    # i * (num_frames - 1) / (count - 1), rounded to the nearest integer.
    return [(2 * i * (num_frames - 1) + count - 1) // (2 * (count - 1)) for i in range(count)]


def flag_note(verdict: SafetyVerdict) -> str:
    """The note for a flagged video that is kept."""
    return f"the safety check flagged this video: {_finding(verdict)}"


def why_not_checked(error: Exception) -> str:
    """Why a finished video was not checked, as part of a message."""
    return f"the classifier failed: {type(error).__name__}: {first_line(error)}"


def unchecked_note(why: str) -> str:
    """The note for a video that is kept although it was not checked."""
    return f"the safety check was not made: {why}"


def _finding(verdict: SafetyVerdict) -> str:
    return (
        f"{verdict.model} labels frame {verdict.frame} {verdict.label!r} with a score of {verdict.score:.3f}, and the "
        f"threshold is {verdict.threshold:g}"
    )
