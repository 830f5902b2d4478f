"""``hunyuan-local bench``: run the same requests on several backends, record every run and write a report."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import rich_click as click
from click.core import ParameterSource
from rich.console import Console

from ...backends.base import Backend
from ...backends.registry import backend_names
from ...bench.results.result import BenchResult, load_result
from ...bench.run.folder import RESULT, held
from ...bench.run.plan import check_number
from ...bench.run.runner import VIDEOS
from ...bench.run.scenarios import DEFAULT, ScenarioFile, read_scenarios, scenario_names
from ...bench.run.session import LocalOptions, Session, check_options, make_backends, open_session
from ...bench.run.targets import parse_targets
from ...config import cache_names, model_names, profile_names
from ...config.extras import require_extra
from ...errors import BenchIncompleteError, ConfigError, GenerationCancelledError, HunyuanLocalError, ReportError
from ...provenance import check_source_date
from ..shared.batch_workers import weights_of
from ..shared.bench_display import BenchDisplay, one_line
from ..shared.console import note_default_model, stderr, tell_finished
from ..shared.options import DEFAULT_MODEL_TEXT, Lora, refuse_missing_libraries


def _local_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of the local backend, with shorter help than in ``generate``."""
    options = (
        click.option("--cache", metavar="NAME", help=f"Step cache of the local backend: {', '.join(cache_names())}."),
        click.option("--lora", multiple=True, type=Lora(), metavar="FILE[=SCALE]",
                     help="LoRA of the local backend. Repeatable."),
        click.option("--profile", show_default="auto", help=f"Profile of the local backend: auto, "
                     f"{', '.join(profile_names())}, a YAML file, or a mode listed by 'hunyuan-local plan'."),
        click.option("--revision", help="Branch, tag or commit of the local model."),
        click.option("--model", show_default=DEFAULT_MODEL_TEXT,
                     help=f"Model of the local backend: {', '.join(model_names())}, a folder, or a Hub id."),
    )  # fmt: skip
    for option in options:
        command = option(command)
    return command


@click.group(name="bench", invoke_without_command=True)
@click.option("--scenarios", default=DEFAULT, show_default=True, metavar="FILE", help=f"Requests to run: a YAML file, "
              f"or one of {', '.join(scenario_names())}.")  # fmt: skip
@click.option("--backend", "backends", multiple=True, metavar="NAME[=URL]",
              help=f"Backend to measure: {', '.join(backend_names())}; with =URL, your own server in that service's "
              "format. Repeatable; at least one is required.")  # fmt: skip
@click.option("--repeats", type=click.IntRange(min=1), metavar="N", show_default="from the file",
              help="Measured runs per request.")  # fmt: skip
@click.option("--output-dir", "-o", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              show_default="bench-NAME-TIME", help="Folder of results, report and videos; with the same folder, the "
              "same command resumes the bench.")  # fmt: skip
@click.option("--max-cost", "max_cost_usd", type=float, metavar="USD", help="Spending limit for the bench at "
              "services, earlier runs included.")  # fmt: skip
@click.option("--yes", is_flag=True, help="Do not ask before submitting billed videos.")
@click.option("--retry-failed", is_flag=True, help="Repeat failed runs.")
@click.option("--keep-videos/--no-keep-videos", default=True, show_default=True, help="Keep each video.")
@click.option("--api-key", metavar="KEY", help="API key, if there is only one service; prefer "
              "WAVESPEED_API_KEY or NOVITA_API_KEY.")  # fmt: skip
@click.option("--timeout", "timeout_s", type=float, metavar="SECONDS", show_default="3600",
              help="Time limit for a hosted task.")  # fmt: skip
@_local_options
@click.pass_context
def command(ctx: click.RichContext, /, scenarios: str, backends: tuple[str, ...], **flags: Any) -> None:
    """Benchmark backends with the same requests and write a report.

    Example: hunyuan-local bench --scenarios smoke --backend local --model tiny

    Every run is recorded, failed runs too; warm-up runs are kept separate. Ctrl-C stops the bench, and the same
    command with the same --output-dir resumes it. Billed requests need your confirmation or --yes. Exit code 21 if a
    run failed. The last line of stdout is JSON.
    """
    if ctx.invoked_subcommand is not None:
        _refuse_options(ctx)
        return
    require_extra("bench", "a bench")
    console = stderr()
    check_source_date()
    file = read_scenarios(scenarios)
    names = parse_targets(backends)
    local = LocalOptions(**{name: flags[name] for name in LocalOptions.__dataclass_fields__})
    check_options(names, local, flags["api_key"], flags["timeout_s"])
    check_number(file, [name for name, _ in names], flags["repeats"] or file.repeats)
    with contextlib.ExitStack() as closing:
        made = make_backends(names, local, flags["api_key"], flags["timeout_s"])
        for backend in made:
            closing.callback(backend.close)
            refuse_missing_libraries(backend)
        folder = flags["output_dir"] or Path(f"bench-{file.name}-{datetime.now():%Y%m%d-%H%M%S}")
        closing.enter_context(held(folder))
        console.print(f"bench {file.name} in {folder}", markup=False)
        _measure(console, file, made, local, folder, flags)


@command.command(name="compare")
@click.argument("a", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("b", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print only the JSON line, without the table.")
def compare(a: Path, b: Path, as_json: bool) -> None:
    """Compare bench B with bench A: ratios, and a verdict only if the confidence intervals do not overlap.

    A and B are result.json files written by bench. The last line of stdout is JSON.
    """
    from ...bench.report.compare import compare as compare_results
    from ...bench.report.compare import comparison_table

    require_extra("bench", "a bench")
    found = compare_results(load_result(a), load_result(b))
    if not as_json:
        print(f"{comparison_table(found)}\n")
    print(json.dumps(found.to_json(), ensure_ascii=False))


def _refuse_options(ctx: click.Context) -> None:
    given = [
        name for name in ctx.params if ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE
    ]  # fmt: skip
    if given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(given))
        raise ConfigError(f"{flags}: not an option of 'bench {ctx.invoked_subcommand}'; leave it out")


def _measure(
    console: Console,
    file: ScenarioFile,
    backends: list[Backend],
    local: LocalOptions,
    folder: Path,
    flags: dict[str, Any],
) -> None:
    """Run the bench, write the report and print the last line of stdout."""

    def weights() -> str:  # downloaded before the first run, so that no run's time includes it
        return next(weights_of(console, backend) for backend in backends if backend.config is not None)

    for backend in backends:
        note_default_model(console, backend, local.model)
    console.print("describing this machine ...")  # in a subprocess, which imports torch and diffusers
    session = open_session(
        file, backends, folder, repeats=flags["repeats"] or file.repeats, local=local, weights=weights,
        max_cost_usd=flags["max_cost_usd"], retry_failed=flags["retry_failed"], keep_videos=flags["keep_videos"],
        on_note=lambda text: console.print(text, markup=False),
    )  # fmt: skip
    bench = session.bench
    with contextlib.closing(session):
        _confirm(console, session, flags["yes"])
        stopped: BaseException | None = None
        with BenchDisplay(console, len(bench.todo)) as display:
            try:
                bench.run(display.begin, display.row)
            except (KeyboardInterrupt, GenerationCancelledError) as error:
                stopped = error
    bench.save()
    unsaid = _write(console, bench.result, folder, session)
    missing = len(bench.todo) - display.done
    if stopped is not None:
        raise GenerationCancelledError(
            f"stopped with {missing} runs left; the report covers the finished runs; the same command with "
            f"--output-dir {folder} resumes the bench"
        ) from stopped
    failed = [row for row in bench.rows if row.status == "failed"]
    if failed:
        kinds = ", ".join(sorted({row.error_kind for row in failed}))
        raise BenchIncompleteError(
            f"{len(failed)} of {len(bench.rows)} runs failed ({kinds}); the first: {failed[0].backend}, "
            f"{failed[0].scenario}: {one_line(failed[0].error)}; --retry-failed with --output-dir {folder} repeats "
            "them"
        )
    if unsaid is not None:
        raise unsaid


def _confirm(console: Console, session: Session, yes: bool) -> None:
    """Ask for confirmation before submitting billed requests.

    Raises:
        ConfigError: stdin is not a terminal.
        click.Abort: the answer was no.
    """
    if not session.bills:
        return
    for bill in session.bills:
        console.print(f"billed: {bill.sentence}", markup=False)
    known = [bill.tasks * bill.price_usd for bill in session.bills if bill.price_usd is not None]
    total = f"{sum(known):.2f} US dollars" + (
        " plus videos at unknown prices" if len(known) < len(session.bills) else ""
    ) if known else "at unknown prices"  # fmt: skip
    tasks = sum(bill.tasks for bill in session.bills)
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(
            f"{tasks} videos would be billed, {total}, and stdin is not a terminal to confirm this; add --yes to "
            "generate them"
        )
    click.confirm(f"Generate {tasks} billed videos, {total}?", abort=True, err=True)


def _write(console: Console, result: BenchResult, folder: Path, session: Session) -> ReportError | None:
    """Write the report and print the last line of stdout; return the error if there is no report."""
    from ...bench.report.report import summary_json, write_report

    report, unsaid = None, None
    try:
        report = write_report(result, folder)
        console.print(f"report: {report}", markup=False)
    except (HunyuanLocalError, OSError) as error:
        console.print(f"note: {error}", markup=False)
        unsaid = ReportError(
            f"{error}; the runs are in {folder / RESULT}; run the same command again to write the report"
        )
    budget = session.budget
    paths = {
        "result": str(folder / RESULT),
        "report": None if report is None else str(report),
        "plots": sorted(str(path) for path in (folder / "plots").glob("*.png")),
        "videos": str(folder / VIDEOS),
    }
    spent = {} if budget is None else {"submissions": budget.submissions, "spent_usd": budget.spent_usd}
    text = json.dumps(summary_json(result) | spent | {"paths": paths}, ensure_ascii=False)
    tell_finished(console, text, str(folder / RESULT), asked_for=False)
    return unsaid
