"""How an image enters an image-to-video transformer: what the planner and the pipeline both need to know, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ImageCondition:
    """One value of ``image_condition_type`` in a transformer's ``config.json``.

    Attributes:
        image_stride: each how many image tokens of the text encoder one is kept.
        extra_frames: frames that the model generates before the first of the video; they are cut off.
    """

    image_stride: int
    extra_frames: int


IMAGE_CONDITIONS = {
    "token_replace": ImageCondition(image_stride=4, extra_frames=0),
    "latent_concat": ImageCondition(image_stride=2, extra_frames=4),
}
