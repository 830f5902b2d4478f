"""``hunyuan-local jobs``: inspect and manage a job store."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click
from rich.table import Table

from ...errors import ConfigError
from ...json_text import json_text
from ...schema import JobStatus
from ..shared.console import stdout
from ..shared.options import Duration, data_dir_option

if TYPE_CHECKING:
    from ...jobs.folder import DataFolder
    from ...jobs.job import Job
    from ...jobs.store import JobStore

STATUSES: tuple[JobStatus, ...] = ("queued", "running", "succeeded", "failed", "canceled")


@click.group(name="jobs")
def command() -> None:
    """List, show, cancel, retry and delete the jobs of a server or of workers.

    hunyuan-local jobs list --status failed
    """


@command.command(name="list")
@data_dir_option
@click.option("--status", type=click.Choice(STATUSES), multiple=True, help="Only jobs with this status. Repeatable.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Number of jobs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def list_jobs(data_dir: Path | None, status: tuple[JobStatus, ...], limit: int, as_json: bool) -> None:
    """List the newest jobs."""
    _, store = _open(data_dir)
    jobs = store.find(statuses=status, limit=limit)
    if as_json:
        for job in jobs:
            print(json_text(job))
        return
    table = Table(box=None, pad_edge=False)
    for title in ("job", "status", "created", "prompt"):
        table.add_column(title, no_wrap=title in ("job", "status"), overflow="ellipsis", max_width=40)
    for job in jobs:
        table.add_row(job.job_id, _status(job), _ago(job.created_at), job.request.prompt)
    stdout().print(table if jobs else "no jobs")


@command.command(name="show")
@data_dir_option
@click.argument("job_id")
def show(data_dir: Path | None, job_id: str) -> None:
    """Print one job as JSON."""
    folder, store = _open(data_dir)
    job = _find(store, job_id)
    video = folder.video(job)
    print(json.dumps(job.model_dump(mode="json") | {"path": str(video) if video.exists() else None}, indent=2))


@command.command(name="cancel")
@data_dir_option
@click.argument("job_id")
def cancel(data_dir: Path | None, job_id: str) -> None:
    """Cancel a job; a running job stops within one step."""
    _, store = _open(data_dir)
    job = _find(store, job_id)
    if job.is_finished:
        raise ConfigError(f"job {job_id}: is already {job.status}; only queued and running jobs can be cancelled")
    after = store.cancel(job_id)
    print(f"{job_id}: {'stopping' if after and after.status == 'running' else 'cancelled'}")


@command.command(name="retry")
@data_dir_option
@click.argument("job_id")
def retry(data_dir: Path | None, job_id: str) -> None:
    """Requeue a failed or canceled job; it resumes from its last saved step."""
    _, store = _open(data_dir)
    job = _find(store, job_id)
    if store.retry(job_id) is None:
        raise ConfigError(f"job {job_id}: is {job.status}; only failed and canceled jobs can be retried")
    print(f"{job_id}: queued again")


@command.command(name="delete")
@data_dir_option
@click.argument("job_id")
def delete(data_dir: Path | None, job_id: str) -> None:
    """Delete a finished job and its video."""
    from ...jobs.housekeeping import discard

    folder, store = _open(data_dir)
    job = _find(store, job_id)
    if not job.is_finished:
        raise ConfigError(f"job {job_id}: is {job.status}; cancel it first")
    discard(folder, store, job)
    print(f"{job_id}: deleted")


@command.command(name="prune")
@data_dir_option
@click.option("--older-than", "older_than_s", type=Duration(), required=True, metavar="TIME",
              help="Minimum time since they finished, such as 12h or 7d.")  # fmt: skip
def prune_jobs(data_dir: Path | None, older_than_s: float) -> None:
    """Delete old finished jobs and their videos."""
    from ...jobs.housekeeping import prune

    folder, store = _open(data_dir)
    print(f"{prune(folder, store, time.time() - older_than_s)} jobs deleted")


def _open(data_dir: Path | None) -> tuple[DataFolder, JobStore]:
    """Open an existing data folder; unlike a server, these commands never create one."""
    from ...config.places import default_data_dir
    from ...jobs.folder import DataFolder

    root = data_dir or default_data_dir()
    if not (root / "jobs.sqlite3").exists():
        raise ConfigError(f"data_dir={str(root)!r}: contains no jobs; give the server's folder with --data-dir")
    folder = DataFolder(root)
    return folder, folder.store()


def _find(store: JobStore, job_id: str) -> Job:
    job = store.get(job_id)
    if job is None:
        raise ConfigError(f"job {job_id!r}: not found; see 'hunyuan-local jobs list'")
    return job


def _status(job: Job) -> str:
    progress = job.progress
    if job.status != "running" or progress is None or not progress.total:
        return job.status
    return f"{progress.stage} {progress.step}/{progress.total}"


def _ago(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M")
