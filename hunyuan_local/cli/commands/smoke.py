"""``hunyuan-local smoke``: the complete path from prompt to checked file, at the smallest size."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import rich_click as click

from ...backends.registry import get_backend
from ...config.places import temporary_folder
from ...schema import GenerationRequest
from ...video import probe
from ..shared.console import ProgressDisplay, stderr
from ..shared.options import model_option

if TYPE_CHECKING:
    from PIL.Image import Image

# The smallest request that uses the schedule (2 steps) and the temporal axis (5 frames = 2 latent frames).
_SMALLEST = GenerationRequest(
    prompt="a red circle moving right on a black background",
    width=144, height=80, num_frames=5, num_inference_steps=2, seed=0,
)  # fmt: skip


@click.command(name="smoke")
@model_option
def command(model: str | None, revision: str | None, profile: str | None) -> None:
    """Generate the smallest possible video and check the file.

    Example: hunyuan-local smoke --model tiny

    Loads the model, runs two denoising steps, decodes the frames, and writes and checks a temporary mp4. For a model
    that needs an image, it draws one.
    """
    console = stderr()
    began = time.monotonic()
    with temporary_folder("hunyuan-local-smoke-") as folder, ProgressDisplay(console) as display:
        display.begin()
        backend = get_backend("local", model=model, revision=revision, profile=profile)
        result = backend.generate(smallest(backend.capabilities.takes_image), display.context(folder / "smoke.mp4"))
        info = probe(result.path)
    print(
        f"ok: {result.model} generated {info.num_frames} frames of {info.width}x{info.height} "
        f"in {time.monotonic() - began:.1f} s"
    )


def smallest(takes_image: bool) -> GenerationRequest:
    """The smallest request; for a model that needs an image, with the circle that the prompt describes."""
    return _SMALLEST.replace(image=_circle()) if takes_image else _SMALLEST


def _circle() -> Image:
    """What the prompt describes, in the middle of the picture."""
    from PIL import Image, ImageDraw

    assert _SMALLEST.width is not None and _SMALLEST.height is not None
    picture = Image.new("RGB", (_SMALLEST.width, _SMALLEST.height), (8, 8, 8))
    ImageDraw.Draw(picture).circle((_SMALLEST.width / 2, _SMALLEST.height / 2), 13, fill=(220, 40, 40))
    return picture
