"""``hunyuan-local worker``: make the videos of a job store."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import rich_click as click

from ...config import GIB, LoraConfig
from ...errors import TerminationRequest
from ..shared.console import log_to_stderr
from ..shared.options import context_parallel_options, data_dir_option, model_option, tuning_options, worker_options
from ..shared.rewriting_and_safety import guard_options, rewriting_from, safety_from


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
@click.option("--queue", help="Whose jobs it takes; those of its model if left out.", hidden=True)
@click.option("--name", help="Of this worker in lists; must be unique.", hidden=True)
@click.option("--end-with-stdin", is_flag=True, hidden=True, help="End when standard input is closed.")
def command(
    data_dir: Path | None,
    model: str | None,
    revision: str | None,
    profile: str | None,
    lora: tuple[LoraConfig, ...],
    cache: str | None,
    context_parallel: int | None,
    context_parallel_mode: str | None,
    lease_s: float,
    checkpoint_every: int | None,
    min_free_gib: float,
    encode_ahead: bool,
    name: str | None,
    end_with_stdin: bool,
    preview_every: int,
    queue: str | None,
    **guards: Any,
) -> None:
    """Take jobs from the store of a server, or of other workers, until Ctrl-C or SIGTERM.

    The state of the unfinished video is saved then, and whoever takes the job next goes on from it.
    """
    from ...backends.registry import get_backend
    from ...jobs.folder import DataFolder
    from ...jobs.worker import Worker
    from ...jobs.worker_config import WorkerConfig, worker_name

    log_to_stderr()
    folder = DataFolder(data_dir)
    config = WorkerConfig(
        name=name or worker_name(),
        queue=queue,
        lease_s=lease_s,
        checkpoint_every=checkpoint_every,
        min_free_bytes=round(min_free_gib * GIB),
        encode_ahead=encode_ahead,
        preview_every=preview_every,
        rewriting=rewriting_from(guards),
        safety=safety_from(guards),
    )
    backend = get_backend(
        "local", model=model, profile=profile, revision=revision, lora=lora, cache=cache,
        context_parallel=context_parallel, context_parallel_mode=context_parallel_mode,
    )  # fmt: skip
    worker = Worker(folder, folder.store(), backend, config)

    def end(number: int, frame: FrameType | None) -> None:
        worker.stop()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    if end_with_stdin:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    with contextlib.suppress(TerminationRequest):  # it came while the model was being loaded: no job is held
        worker.run()


def _end_with_stdin() -> None:
    """Whoever started this process holds the other end of the pipe; the kernel closes it, however that one dies."""
    while os.read(0, 4096):  # not through sys.stdin, whose lock this thread would hold when the interpreter ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)
