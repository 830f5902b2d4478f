"""Whether and how finished frames are checked by a classifier of pictures. Knows nothing about torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .strict import StrictConfig

SafetyMode = Literal["off", "flag", "block"]


class SafetyConfig(StrictConfig):
    """What becomes of a video whose frames a classifier flags.

    Attributes:
        mode: ``off`` checks nothing; ``flag`` says so in the result and delivers the video; ``block`` withholds it.
        model_id: the classifier, a Hub id or a folder that transformers' ``image-classification`` pipeline takes.
        revision: branch, tag or commit of a Hub repository.
        labels: of the classifier's labels those that count, in whatever case.
        threshold: a frame is flagged from this score of such a label on, 0 to 1.
        frames: so many frames are looked at, evenly spaced, the first and the last among them.
    """

    mode: SafetyMode = "off"
    model_id: str = "Falconsai/nsfw_image_detection"
    revision: str | None = None
    labels: tuple[str, ...] = ("nsfw",)
    threshold: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.5
    frames: Annotated[int, Field(ge=1, le=1000)] = 8
