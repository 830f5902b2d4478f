"""``hunyuan-local worker``: run the jobs of a job store."""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType
from typing import Any

import rich_click as click

from ...errors import TerminationRequest
from ..shared.console import log_to_stderr
from ..shared.options import context_parallel_options, data_dir_option, model_option, tuning_options, worker_options
from ..shared.rewriting_and_safety import guard_options, guards_from
from ..shared.worker_pool import worker_options_from


@click.command(name="worker")
@data_dir_option
@model_option
@tuning_options
@context_parallel_options
@worker_options
@guard_options
@click.option("--encode-ahead", is_flag=True, help="Encode the prompts of all queued jobs first.")
@click.option("--preview-every", type=click.IntRange(min=0), default=0, show_default="off", metavar="N",
              help="Write a preview image every N steps, next to the video file.")  # fmt: skip
@click.option("--options-from-parent", is_flag=True, hidden=True, help="Read the options from the parent process.")
def command(options_from_parent: bool, **flags: Any) -> None:
    """Run the jobs in a job store until Ctrl-C or SIGTERM.

    Example: hunyuan-local worker --model tiny

    Several workers, and a server started with --workers 0, can share one store (--data-dir). On Ctrl-C the state of
    the unfinished video is saved, and the next worker that takes the job resumes from it.
    """
    if options_from_parent:
        os.nice(10)  # the server's responses have priority over generation on shared cores
    from ...jobs.folder import DataFolder
    from ...jobs.worker import Worker
    from ...jobs.worker_config import WorkerOptions
    from ...json_text import from_json_text
    from ...provenance import check_source_date
    from ...signals import on_ending
    from ...supervision import end_with_parent, parent_connection

    check_source_date()  # otherwise every job would fail
    log_to_stderr()
    connection = parent_connection() if options_from_parent else None
    if connection is None:
        options = worker_options_from(flags | guards_from(flags))
    else:
        options = from_json_text(WorkerOptions, connection.makefile("rb").readline().decode())
    folder = DataFolder(options.data_dir)
    worker = Worker(folder, folder.store(), options.backend(), options)

    def end(number: int, frame: FrameType | None) -> None:
        worker.stop()

    on_ending(end, signal.SIGINT)
    if connection is not None:
        end_with_parent(connection)
    with contextlib.suppress(TerminationRequest):
        worker.run()
