"""Renders the form's field for the input image as HTML: a button and drop zone, and the chosen image.

``image_field.js`` uploads the chosen file to ``/ui/image`` and writes its SHA-256 into the form's hidden text field.
Independent of Gradio.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from ..images import DEFAULT_FIT, MAX_BYTES, InputImage, nearest_size
from ..schema import GenerationRequest

# Browsers list only files of these types; the server checks the content.
_TYPES = "image/*,.tif,.tiff,.jp2,.ppm,.tga"


def script() -> str:
    """The field's behaviour: the body of a function of ``element``, as Gradio's HTML component runs it."""
    return Path(__file__).with_name("image_field.js").read_text(encoding="utf-8")


def field(image: InputImage | None, said: str = "", sizes: Sequence[tuple[int, int]] = ()) -> str:
    """The field with the chosen image, or empty.

    Args:
        said: a problem of the field.
        sizes: the model's sizes (width, height) to choose from for an image.
    """
    chosen, label, remove = "", "Choose an image", ""
    problem = f'<p class="hl-image-problem" role="alert">{escape(said)}</p>' if said else ""
    if image is not None:
        label = "Choose another"
        about = describe(image)
        if sizes:
            width, height = nearest_size(image.size, sizes)
            about += f" An empty size becomes {width}x{height}, which is nearest to its shape."
        chosen = f'{thumbnail(image)}<p class="hl-image-about">{escape(about)}</p>'
        remove = '<button type="button" class="hl-button" data-remove>Remove</button>'
    return (
        f'<section class="hl-drop" aria-label="Image" data-limit="{MAX_BYTES}"><div class="hl-image">{chosen}</div>'
        f'<div class="hl-actions"><label class="hl-button">{label}'
        f'<input type="file" class="hl-unseen" accept="{_TYPES}"></label>{remove}</div>'
        '<p class="hl-note">The video begins with this image. Drop a file here, or choose one.</p>'
        f"{problem}</section>"
    )


def messages() -> str:
    """The place for the script's messages; Python never updates it."""
    return '<p class="hl-note" role="status"></p><p class="hl-image-problem" role="alert"></p>'


def thumbnail(image: InputImage) -> str:
    """A small version of the image."""
    return f'<img class="hl-input" src="image/{image.sha256}.jpg" alt="The image with which the video begins">'


def describe(image: InputImage) -> str:
    """Size, format and notes, in sentences."""
    return " ".join([f"{size_of(image)}, {image.format}.", *(f"{note[0].upper()}{note[1:]}." for note in image.notes)])


def size_of(image: InputImage) -> str:
    """Width and height in pixels."""
    return f"{image.width} x {image.height}"


def settings(request: GenerationRequest) -> str | None:
    """The image of a job's request and how it is fitted; None without an image."""
    if request.image is None:
        return None
    return f"{describe(request.image)} Fit: {request.image_fit or DEFAULT_FIT}."
