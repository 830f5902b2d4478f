"""``hunyuan-local models``: list models, and whether their weights are on this machine and complete."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click
from rich.table import Table

from ..shared.console import stdout

if TYPE_CHECKING:
    from ...weights.inventory import Model


@click.command(name="models")
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="[DIR]...")
@click.option("--json", "as_json", is_flag=True, help="Print the models as JSON.")
def command(folders: tuple[Path, ...], as_json: bool) -> None:
    """List the models known by name and the checkpoints on this machine.

    Example: hunyuan-local models ~/checkpoints

    Searches the Hugging Face Hub cache and each DIR for HunyuanVideo checkpoints, and shows whether they are
    complete. Uses no network.
    """
    from ...weights.inventory import list_models

    models = list_models(folders)
    if as_json:
        print(json.dumps([model.as_json() for model in models]))
        return
    for model in models:
        _print(model)


def _print(model: Model) -> None:
    """Print several lines per model, since paths are long."""
    from ...weights.download import in_gb
    from ...weights.licence import is_accepted

    console = stdout()
    revision = f" --revision {model.revision}" if model.revision is not None else ""
    console.print(f"{model.name}{revision}: {model.problem or 'ready'}", markup=False)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    if model.folder is None:
        table.add_row("  from", model.model_id)
    else:
        table.add_row("  in", str(model.folder))
        table.add_row("  size", in_gb(model.size_bytes))
    if model.licence is not None:
        said = "accepted" if is_accepted(model.licence) else "not accepted"
        table.add_row("  licence", f"{model.licence.name}, {model.licence.version}: {said}")
    console.print(table)
