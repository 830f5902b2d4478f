"""``hunyuan-local worker``: make the videos of a job store."""

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
@click.option("--encode-ahead", is_flag=True, help="Encode the prompts of all waiting jobs first.")
@click.option("--preview-every", type=click.IntRange(min=0), default=0, metavar="N", help="Write a picture of the "
              "unfinished video after every N steps, beside its file.")  # fmt: skip
@click.option("--options-from-parent", is_flag=True, hidden=True, help="Of a pool: its options come from there.")
def command(options_from_parent: bool, **flags: Any) -> None:
    """Take jobs from the store of a server, or of other workers, until Ctrl-C or SIGTERM.

    The state of the unfinished video is saved then, and whoever takes the job next goes on from it.
    """
    if options_from_parent:
        os.nice(10)  # answers go before the work, where both want the same cores
    from ...ending import on_ending
    from ...jobs.folder import DataFolder
    from ...jobs.worker import Worker
    from ...jobs.worker_config import WorkerOptions
    from ...json_text import from_json_text
    from ...provenance import check_source_date
    from ...supervision import end_with_parent, parent_connection

    check_source_date()  # or every job would be refused
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
