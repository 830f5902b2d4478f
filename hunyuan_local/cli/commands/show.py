"""``hunyuan-local show``: print the provenance of a video file."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from ...json_text import json_text
from ...provenance import read_provenance


@click.command(name="show")
@click.argument("file", type=click.Path(path_type=Path))
def command(file: Path) -> None:
    """Print how FILE was generated, as JSON.

    Example: hunyuan-local show cat.mp4

    Reads the provenance that hunyuan-local writes into each video: request, model, profile, device, library versions
    and times.
    """
    print(json_text(read_provenance(file), indent=2))
