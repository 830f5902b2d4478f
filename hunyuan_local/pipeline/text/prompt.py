"""What one encoding depends on: a text, and for image-to-video models an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...images import InputImage

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Prompt:
    """A prompt as a text encoder sees it.

    Attributes:
        text: the prompt, without the template.
        image: the image that the text encoder sees with it; None for a black one, or for text alone.
        image_stride: each how many image tokens one is kept; 0 for text alone.
    """

    text: str
    image: InputImage | None = None
    image_stride: int = 0

    @property
    def key(self) -> list[object]:
        """The values that identify the prompt; for text alone, only the text."""
        if not self.image_stride:
            return [self.text]
        return [self.text, None if self.image is None else self.image.sha256, self.image_stride]

    def pixels(self) -> Image:
        """The image, decoded. A black one has any size: the image processor scales it to the same pixels."""
        from PIL import Image

        return Image.new("RGB", (16, 16)) if self.image is None else self.image.pixels()
