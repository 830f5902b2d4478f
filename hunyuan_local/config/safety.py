"""Settings for the safety check of frames by an image classifier; does not use torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .strict import StrictConfig

SafetyMode = Literal["off", "flag", "block"]


class SafetyConfig(StrictConfig):
    """Settings for the safety check.

    Attributes:
        mode: ``off`` checks nothing; ``flag`` reports a flagged video in the result; ``block`` withholds it.
        model_id: classifier: a Hub id or a folder for transformers' ``image-classification`` pipeline.
        revision: branch, tag or commit of a Hub repository.
        labels: labels of the classifier that count as unsafe, in any case.
        threshold: score, 0 to 1, from which a frame is flagged.
        frames: number of checked frames, evenly spaced, including the first and the last.
    """

    mode: SafetyMode = "off"
    model_id: str = "Falconsai/nsfw_image_detection"
    revision: str | None = None
    labels: tuple[str, ...] = ("nsfw",)
    threshold: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.5
    frames: Annotated[int, Field(ge=1, le=1000)] = 8
