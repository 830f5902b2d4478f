"""``hunyuan-local batch``: a folder of videos from a file of prompts; the same command resumes the rest."""

from __future__ import annotations

import json
import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import rich_click as click
from rich.console import Console

from ...backends.base import Backend
from ...backends.hosted.spending import Budget
from ...batch.check import check_items
from ...batch.destination import Destination
from ...batch.file import BadLine, BatchItem, read_batch
from ...batch.formats import Format
from ...batch.items import Maker, wanted_items
from ...batch.report import check_report_path, write_report
from ...batch.run import Batch
from ...batch.summary import Summary
from ...config.extras import require_ray
from ...errors import BatchIncompleteError, ConfigError, GenerationCancelledError, HunyuanLocalError, ReportError
from ...jobs.pool import Pool
from ...provenance import check_source_date
from ...schema import GenerationRequest
from ...signals import on_ending
from ..shared.batch_display import BatchDisplay, print_batch_summary
from ..shared.batch_workers import make_batch_pool, refuse_foreign, size_check, weights_of
from ..shared.console import note_default_model, stderr, tell_finished
from ..shared.options import (
    backend_from,
    backend_options,
    context_parallel_options,
    model_option,
    refuse_missing_libraries,
    request_options,
    tuning_options,
    worker_options,
)
from ..shared.rewriting_and_safety import guard_options, guards_from
from ..shared.worker_pool import executor_options

if TYPE_CHECKING:
    _Base = click.ParamType[tuple[int, ...]]
else:
    _Base = click.ParamType  # not generic in older releases of click


class Seeds(_Base):
    """Comma-separated integers."""

    name = "seeds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r}: must be comma-separated integers, such as 1,2,3", param, ctx)


@click.command(name="batch")
@click.argument("file")
@click.option("--output-dir", "-o", required=True, metavar="DIR", help="Folder of the videos, or a URL such as "
              "s3://bucket/folder.")  # fmt: skip
@click.option(
    "--format",
    type=click.Choice(["jsonl", "csv", "text"]),
    show_default="detected from name and content",
    help="Format of FILE.",
)
@click.option(
    "--seeds", type=Seeds(), default=(), metavar="N,N,...", help="Generate each line once with each of these seeds."
)
@click.option("--num-videos-per-prompt", type=click.IntRange(min=1), default=1, show_default=True, metavar="N",
              help="Generate N videos per line, with consecutive seeds.")  # fmt: skip
@click.option("--skip-invalid", is_flag=True, help="Skip invalid lines instead of stopping.")
@click.option("--retry-failed", is_flag=True, help="Retry videos that failed in an earlier run.")
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), metavar="HTML", help="At the end, write a "
              "page with each video, its settings and times.")  # fmt: skip
@backend_options("local", "Where to generate the videos")
@click.option("--concurrency", type=click.IntRange(min=1), metavar="N", show_default="1",
              help="Number of concurrent tasks at a service.")  # fmt: skip
@click.option("--max-cost", "max_cost_usd", type=float, metavar="USD", help="Spending limit for the batch at a "
              "service, earlier runs included.")  # fmt: skip
@click.option("--allow-loss", is_flag=True, help="Let a service omit or change settings that it does not support.")
@click.option("--submit-again", is_flag=True, help="Submit, and pay for, a new task even if one may still be open.")
@model_option
@tuning_options
@context_parallel_options
@executor_options
@worker_options
@request_options
@guard_options
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON, on the last line of stdout.")
def command(
    file: str,
    output_dir: str,
    format: Format | None,
    seeds: tuple[int, ...],
    num_videos_per_prompt: int,
    skip_invalid: bool,
    retry_failed: bool,
    report: Path | None,
    max_cost_usd: float | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Generate a video for each line of FILE.

    Example: hunyuan-local batch prompts.txt --output-dir videos --model tiny

    FILE is plain text with one prompt per line (# starts a comment), or JSON lines or CSV with any fields of a
    request; - reads standard input. Options apply to every line that does not set them itself. The whole file is
    checked first. Ctrl-C stops the batch; the same command generates the rest and resumes unfinished videos from
    their last saved step. Exit code 18 if videos are missing.
    """
    console = stderr()
    check_source_date()
    defaults = {name: flags.pop(name, None) for name in ("size", *GenerationRequest.model_fields) if name != "prompt"}
    found = read_batch(file, format=format, defaults=defaults, seeds=seeds, num_videos_per_prompt=num_videos_per_prompt)
    for note in found.notes:
        console.print(f"note: {note}", markup=False)
    flags |= guards_from(flags)
    chosen = dict(flags)
    if chosen["executor"] == "ray":
        require_ray()
    backend = backend_from(flags)
    if chosen["executor"] != "ray":  # Ray nodes have their own installations
        refuse_missing_libraries(backend)
    note_default_model(console, backend, chosen["model"])
    refuse_foreign(backend, chosen, max_cost_usd)
    with size_check(backend, chosen) as check_size:
        items, refused = check_items(found.items, backend, allow_loss=flags["allow_loss"], check_size=check_size)
    _tell_bad_lines(console, [*found.bad_lines, *refused], skip_invalid)
    destination = Destination(output_dir)
    if report is not None:
        check_report_path(report)
    with destination.hold():
        summary, problem = _make(console, backend, items, destination, chosen, max_cost_usd, retry_failed)
        print_batch_summary(console, summary)
        unsaid = None if report is None else _write_page(console, report, file, backend, chosen, destination, summary)
    if as_json:
        try:
            tell_finished(
                console, json.dumps(summary.to_json(), ensure_ascii=False), destination.where, asked_for=as_json
            )
        except ReportError as error:
            unsaid = unsaid or error
    if problem is not None:
        raise problem
    if not summary.is_complete:
        raise BatchIncompleteError(_what_is_missing(summary))
    if unsaid is not None:
        raise unsaid


def _write_page(
    console: Console,
    path: Path,
    file: str,
    backend: Backend,
    flags: dict[str, Any],
    destination: Destination,
    summary: Summary,
) -> ReportError | None:
    """Write the page of ``--report``; return an error instead of raising it, so the batch's own result comes first."""
    try:
        facts = _facts(backend, flags, destination, summary)
        write_report(path, summary.rows(), title=f"Batch {Path(file).name}", facts=facts)
    except Exception as error:  # of whatever kind: the videos are finished
        why = str(error) if isinstance(error, HunyuanLocalError) else f"report {path}: {type(error).__name__}: {error}"
        console.print(f"note: {why}", markup=False)
        return ReportError(
            f"{why}; the videos are in {destination.where}; run the same command again to write the report"
        )
    console.print(f"report: {path}", markup=False)
    return None


def _make(
    console: Console,
    backend: Backend,
    items: list[BatchItem],
    destination: Destination,
    flags: dict[str, Any],
    max_cost_usd: float | None,
    retry_failed: bool,
) -> tuple[Summary, HunyuanLocalError | None]:
    """Generate the checked items; return the summary, and the error that stopped the batch early, if any."""
    began = time.monotonic()
    limits = backend.capabilities
    budget = None
    if backend.is_paid:
        budget = Budget(destination.state / "spent.json", limits.price_usd, max_cost_usd)
    maker = Maker(backend.identity, weights_of(console, backend), dict(limits.defaults))
    wanted, notes = wanted_items(items, maker)
    for note in notes:
        console.print(f"note: {note}", markup=False)
    batch = Batch(wanted, destination, backend.identity, limits)
    batch.prepare(retry_failed=retry_failed)
    states = batch.states()
    todo = len(batch.unfinished())
    _log_to(batch.folder.root / "logs" / "batch.log")
    console.print(f"{len(states)} videos in {destination.where}, {todo} to generate", markup=False)
    problem: HunyuanLocalError | None = None
    if todo:
        if budget is not None:
            backend.load()  # report a missing API key now
        pool = make_batch_pool(batch, backend, flags, budget)
        with (
            _stopping_on_signals(pool) as stopping,
            BatchDisplay(console, batch, pool.size, stopping.is_set) as display,
        ):
            try:
                batch.work(pool, stopping, display.update)
            except HunyuanLocalError as error:
                problem = error
        if budget is not None and budget.refusal:
            console.print(f"note: {budget.refusal}", markup=False)
        if stopping.is_set() and batch.unfinished():
            problem = GenerationCancelledError("stopped; the same command resumes the batch")
    for note in batch.notes:
        console.print(f"note: {note}", markup=False)
    try:
        spent_usd = None if budget is None else budget.spent_usd
    except ConfigError as error:  # only the summary needs it
        spent_usd = None
        console.print(f"note: {error}", markup=False)
    return Summary(batch, time.monotonic() - began, spent_usd, limits.price_usd), problem


def _log_to(path: Path) -> None:
    """Log to a file if it can be written; the terminal shows the progress."""
    handler: logging.Handler = logging.NullHandler()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, errors="backslashreplace")
    logging.basicConfig(
        handlers=[handler], level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S"
    )


def _what_is_missing(summary: Summary) -> str:
    counts = summary.counts
    remedies = ["the same command generates the rest"] if summary.left else []
    if counts["failed"]:
        remedies.append("--retry-failed retries the failed ones")
    return f"{counts['failed'] + summary.left} videos are missing; {', '.join(remedies)}"


def _tell_bad_lines(console: Console, bad_lines: list[BadLine], skip: bool) -> None:
    """Print each bad line with its number; raise an error unless bad lines are skipped."""
    for bad in sorted(bad_lines, key=lambda bad: bad.line):
        console.print(f"line {bad.line}: {bad.problem}", markup=False)
    if not bad_lines:
        return
    count = len({bad.line for bad in bad_lines})
    lines = "1 bad line" if count == 1 else f"{count} bad lines"
    if not skip:
        raise ConfigError(f"{lines}, see above; nothing was started; fix these lines, or pass --skip-invalid")
    console.print(f"note: skipping {lines}", markup=False)


def _facts(backend: Backend, flags: dict[str, Any], destination: Destination, summary: Summary) -> dict[str, str]:
    """Facts about the whole batch for the report."""
    if backend.config is None:
        facts = {"Made by": backend.identity}
    else:
        facts = {"Made by": backend.config.name, "Profile": flags["profile"] or "auto"}
    facts |= {
        "Videos": f"{summary.counts['done']} of {sum(summary.counts.values())}",
        "Seconds of the last run": f"{summary.seconds:.1f}",
        "Folder": destination.where,
    }
    if summary.spent_usd is not None:
        facts["Spent"] = f"about {summary.spent_usd:.2f} US dollars"
    return facts


@contextmanager
def _stopping_on_signals(pool: Pool) -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C or termination signal sets, which also stops the workers.

    A second signal raises KeyboardInterrupt.
    """
    stopping = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        if stopping.is_set():
            raise KeyboardInterrupt
        stopping.set()
        pool.ask_to_end()

    put_back = on_ending(end, signal.SIGINT)
    try:
        yield stopping
    finally:
        put_back()
