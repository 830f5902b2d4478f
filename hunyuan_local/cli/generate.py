"""``hunyuan-local generate``: a prompt becomes an mp4."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from ..backends.registry import get_backend
from .console import ProgressDisplay, print_summary, stderr
from .options import model_option, request_from, request_options


@click.command(name="generate")
@click.argument("prompt")
@model_option
@request_options
@click.option("--output", "-o", type=click.Path(path_type=Path), help="The mp4 file; named by model, time and seed "
              "in the current folder if left out.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace the output file if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one line of JSON, the last of stdout.")
def command(
    prompt: str,
    model: str | None,
    revision: str | None,
    profile: str | None,
    size: str | None,
    output: Path | None,
    overwrite: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Make a video from PROMPT.

    Flags that are left out take the model's own defaults. Ctrl-C stops within a step.
    """
    console = stderr()
    request = request_from(prompt, size, flags)
    backend = get_backend("local", model=model, revision=revision, profile=profile)
    if model is None and backend.config.name == "tiny":
        console.print(
            "no CUDA device: using the built-in test model tiny; for real videos run on a machine with a CUDA GPU"
        )
    with ProgressDisplay(console) as display:
        result = backend.generate(request, display.context(output, overwrite))
    print_summary(console, result)
    if as_json:
        print(result.model_dump_json())
    else:
        print(result.path)
