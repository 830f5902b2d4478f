"""``hunyuan-local show``: how a video was made, from the file itself."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from ...json_text import json_text
from ...provenance import read_provenance


@click.command(name="show")
@click.argument("file", type=click.Path(path_type=Path))
def command(file: Path) -> None:
    """Print how FILE was made, as JSON."""
    print(json_text(read_provenance(file), indent=2))
