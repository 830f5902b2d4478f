"""``hunyuan-local generate``: one video from a prompt, on this machine or at a hosted service."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import rich_click as click

from ...backends.registry import backend_names
from ..shared.console import ProgressDisplay, note_default_model, print_result, stderr
from ..shared.options import (
    backend_from,
    backend_options,
    context_parallel_options,
    model_option,
    refuse_missing_libraries,
    request_from,
    request_options,
    tuning_options,
)
from ..shared.rewriting_and_safety import guard_options, refuse_idle_rewriters, rewriting_from, safety_from


def _list_backends(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        print("\n".join(backend_names()))
        ctx.exit()


@click.command(name="generate")
@click.argument("prompt")
@backend_options("local", "Where to generate the video")
@model_option
@tuning_options
@context_parallel_options
@request_options
@guard_options
@click.option("--output", "-o", type=click.Path(path_type=Path), show_default="MODEL-TIME-SEED.mp4 in this folder",
              help="The mp4 file to write.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace the output file if it exists.")
@click.option("--allow-loss", is_flag=True, help="Let a service omit or change settings that it does not support.")
@click.option("--submit-again", is_flag=True, help="Submit, and pay for, a new task even if a task of the same "
              "command is still open; by default that task is resumed.")  # fmt: skip
@click.option("--checkpoint-dir", type=click.Path(path_type=Path), metavar="DIR", help="Save the state of the "
              "unfinished video here; the same command resumes from it.")  # fmt: skip
@click.option("--checkpoint-every", type=int, metavar="N", show_default="about 30 seconds of work",
              help="Save the state every N steps.")  # fmt: skip
@click.option("--preview-every", type=click.IntRange(min=1), metavar="N", help="Write a preview image every N "
              "steps: OUTPUT.preview.png.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, on the last line of stdout.")
@click.option("--list-backends", is_flag=True, is_eager=True, expose_value=False, callback=_list_backends,
              help="Print the names of the backends and exit.")  # fmt: skip
def command(
    prompt: str,
    size: str | None,
    output: Path | None,
    overwrite: bool,
    allow_loss: bool,
    submit_again: bool,
    checkpoint_dir: Path | None,
    checkpoint_every: int | None,
    preview_every: int | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Generate a video from PROMPT.

    Example: hunyuan-local generate "a cat walks through snow" --seed 7 --output cat.mp4

    Without --model, a machine with a GPU uses hunyuan-video (13 B); others use tiny, a small built-in test model.
    Omitted settings take the defaults of the model or the service. Ctrl-C stops within one step; at a service it
    cancels the task if the service supports that.
    """
    console = stderr()
    request = request_from(prompt, size, flags)
    refuse_idle_rewriters(request, flags)
    rewriting, safety = rewriting_from(flags), safety_from(flags)
    chosen = flags["model"]
    with contextlib.ExitStack() as closing:
        with ProgressDisplay(console) as display:
            display.begin()
            backend = closing.enter_context(contextlib.closing(backend_from(flags)))
            refuse_missing_libraries(backend)
            note_default_model(console, backend, chosen)
            context = display.context(
                output,
                overwrite,
                allow_loss=allow_loss,
                submit_again=submit_again,
                checkpoint_dir=checkpoint_dir,
                checkpoint_every=checkpoint_every,
                preview_every=preview_every or 0,
                rewriting=rewriting,
                safety=safety,
            )
            result = backend.generate(request, context)
        print_result(console, result, as_json)
