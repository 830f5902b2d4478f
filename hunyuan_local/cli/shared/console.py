"""Progress and summary of a generation, both on stderr."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table

from ...backends.base import Backend, GenerationContext
from ...durations import clock
from ...errors import ReportError
from ...json_text import json_text
from ...schema import GenerationResult, Progress
from ...stdio import tell

SECONDS_BETWEEN_LINES = 10
STAGE_WORDS = {
    "rewrite": "rewriting the prompt",
    "load": "loading the model",
    "encode": "encoding the prompt",
    "denoise": "denoising",
    "decode": "decoding",
    "write": "writing the file",
    "submit": "sending the request",
    "queue": "waiting in the queue",
    "run": "running at the service",
    "download": "downloading",
}


def stderr() -> Console:
    """Console for everything except results; wraps lines on a terminal, but not in a log."""
    return Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())


def stdout() -> Console:
    """Console for tables that are a command's result; does not wrap lines in a file or a pipe."""
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 200)


def log_to_stderr() -> None:
    """Configure logging of a long-running command: one line per event, with the time."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")


def note_default_model(console: Console, backend: Backend, chosen: str | None) -> None:
    """Print that the built-in test model is used, unless the user chose it."""
    if backend.config is not None and chosen is None and backend.config.name == "tiny":
        console.print(
            "no CUDA device: using the built-in test model tiny; for real videos, use a machine with a CUDA GPU"
        )


class ProgressDisplay:
    """One progress line per stage: step, seconds per step, time left; plain lines without a terminal."""

    def __init__(self, console: Console):
        self._console = console
        self._live = console.is_terminal
        self._bars = Bars(
            SpinnerColumn("dots" if _is_unicode(console) else "line", finished_text=" "),
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[detail]}"),
            console=console,
            disable=not self._live,
        )
        self._task: TaskID | None = None
        self._stage: str | None = None
        self._logged = time.monotonic()
        self._preview: Path | None = None

    def __enter__(self) -> ProgressDisplay:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish_stage()
        self._bars.stop()

    def context(self, output: Path | None, overwrite: bool = False, **options: Any) -> GenerationContext:
        """A generation context that reports progress and notes to this display."""
        return GenerationContext(output, overwrite, on_progress=self, on_note=self.note, **options)

    def begin(self) -> None:
        """Show a line for loading the libraries; without a terminal, ``main`` has printed it already."""
        self._task = self._bars.add_task("loading the libraries", total=None, detail="")

    def note(self, text: str) -> None:
        """Print a note above the progress lines."""
        self._console.print(f"note: {text}", markup=False)

    def __call__(self, progress: Progress) -> None:
        if progress.stage != self._stage:
            self._finish_stage()
            self._stage = progress.stage
            self._logged = time.monotonic()
            self._task = self._bars.add_task(STAGE_WORDS[progress.stage], total=progress.total or None, detail="")
            if not self._live:
                self._console.print(f"{STAGE_WORDS[progress.stage]} ...")
        if progress.preview is not None and progress.preview != self._preview:
            self._preview = progress.preview
            self.note(f"preview: {progress.preview}")
        if self._task is not None and progress.total:
            self._bars.update(self._task, total=progress.total, completed=progress.step, detail=_detail(progress))
            self._log_now_and_then(progress)

    def _log_now_and_then(self, progress: Progress) -> None:
        """Without a terminal, print a plain line every ten seconds."""
        if not self._live and time.monotonic() - self._logged > SECONDS_BETWEEN_LINES:
            self._logged = time.monotonic()
            self._console.print(f"{STAGE_WORDS[progress.stage]} {_detail(progress)}")

    def _finish_stage(self) -> None:
        if self._task is not None:
            task = self._bars.tasks[self._bars.task_ids.index(self._task)]
            self._bars.update(self._task, total=task.total or 1, completed=task.total or 1)


def print_result(console: Console, result: GenerationResult, as_json: bool) -> None:
    """Print the summary on ``console``, and the path, or one line of JSON, on stdout.

    Raises:
        ReportError: the requested JSON cannot be printed.
    """
    print_summary(console, result)
    tell_finished(console, json_text(result) if as_json else str(result.path), str(result.path), asked_for=as_json)


def tell_finished(console: Console, text: str, finished: str, *, asked_for: bool) -> None:
    """Print a result on stdout; if that fails, report the failure on ``console``.

    Args:
        finished: path or URL of the finished work, for the message.
        asked_for: whether the user requested this text, as with ``--json``.

    Raises:
        ReportError: the user requested the text and it cannot be printed.
    """
    if not (why := tell(text)):
        return
    if asked_for:
        raise ReportError(f"--json: the result cannot be printed ({why}), but it is finished: {finished}")
    console.print(f"note: {why}; finished: {finished}", markup=False)


def print_summary(console: Console, result: GenerationResult) -> None:
    """Print model, seed, size, frames and seconds per stage as a table."""
    request, video = result.request, result.video
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    stages = result.timings.model_dump(exclude={"total_s", "denoise_steps"})
    seconds = ", ".join(f"{name.removesuffix('_s')} {value:.1f}" for name, value in stages.items() if value)
    for name, value in (
        ("model", result.model),
        ("seed", result.seed),
        ("size", f"{video.width}x{video.height}" if video else "unknown"),
        ("frames", f"{video.num_frames} at {video.fps:g} fps" if video else "unknown"),
        ("steps", request.num_inference_steps),
        ("seconds", f"{result.timings.total_s:.1f}"),
        ("", seconds),
    ):
        table.add_row(str(name), str(value))
    console.print(table)


def _is_unicode(console: Console) -> bool:
    return console.encoding.lower().startswith("utf")


def _detail(progress: Progress) -> str:
    text = f"{progress.step}/{progress.total}"
    if progress.stage in ("run", "download"):
        text = f"{progress.step} %"
    if progress.seconds_per_step is not None:
        text += f"  {progress.seconds_per_step:.2f} s/step"
    if progress.seconds_left is not None:
        text += f"  {clock(progress.seconds_left)} left"
    return text
