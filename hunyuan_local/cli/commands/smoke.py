"""``hunyuan-local smoke``: the whole way from prompt to checked file, as small as it gets."""

from __future__ import annotations

import time

import rich_click as click

from ...backends.registry import get_backend
from ...config.places import temporary_folder
from ...schema import GenerationRequest
from ...video import probe
from ..shared.console import ProgressDisplay, stderr
from ..shared.options import model_option

# Two steps are the least that use the schedule, and 5 frames the least that use the temporal axis.
_SMALLEST = GenerationRequest(
    prompt="a red circle moving right on a black background",
    width=144, height=80, num_frames=5, num_inference_steps=2, seed=0,
)  # fmt: skip


@click.command(name="smoke")
@model_option
def command(model: str | None, revision: str | None, profile: str | None) -> None:
    """Load the model, make two steps at the smallest size, decode, encode and check the file."""
    console = stderr()
    began = time.monotonic()
    with temporary_folder("hunyuan-local-smoke-") as folder, ProgressDisplay(console) as display:
        display.begin()
        backend = get_backend("local", model=model, revision=revision, profile=profile)
        result = backend.generate(_SMALLEST, display.context(folder / "smoke.mp4"))
        info = probe(result.path)
    print(
        f"ok: {result.model} made {info.num_frames} frames of {info.width}x{info.height} "
        f"in {time.monotonic() - began:.1f} s"
    )
