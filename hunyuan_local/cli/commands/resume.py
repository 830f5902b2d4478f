"""``hunyuan-local resume``: continue an interrupted task at a hosted service."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from ...backends.hosted.open_tasks import OpenTask, OpenTasks
from ...backends.registry import get_backend
from ...errors import ConfigError
from ..shared.console import ProgressDisplay, print_result, stderr


@click.command(name="resume")
@click.argument("job", required=False)
@click.option("--api-key", metavar="KEY", help="API key of the service, as for generate.")
@click.option("--timeout", "timeout_s", type=float, metavar="SECONDS", show_default="3600", help="Time limit from now.")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Write this file instead of the one given to "
              "generate.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace the output file if it exists.")
@click.option("--forget", is_flag=True, help="Remove the job from the list of open jobs instead.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, on the last line of stdout.")
def command(
    job: str | None,
    api_key: str | None,
    timeout_s: float | None,
    output: Path | None,
    overwrite: bool,
    forget: bool,
    as_json: bool,
) -> None:
    """Wait for the task of JOB at a hosted service and download its video.

    Example: hunyuan-local resume JOB

    JOB is the name printed by generate, or the task's id at the service. Without JOB, lists the open jobs. Submits
    nothing.
    """
    open_tasks = OpenTasks()
    if job is None:
        print("\n".join(_line(job, open_tasks.is_free(job)) for job in open_tasks.jobs()) or "no open jobs")
        return
    found = open_tasks.find(job)
    if forget:
        with open_tasks.hold(found.job_id):
            open_tasks.forget(found)
        print(f"forgotten: {_line(found, free=True)}")
        return
    from ...backends.hosted.backend import HostedBackend

    console = stderr()
    backend = get_backend(found.backend, api_key=api_key, base_url=found.base_url, timeout_s=timeout_s)
    if not isinstance(backend, HostedBackend):
        raise ConfigError(f"job {found.job_id}: the backend {found.backend} has no tasks to resume")
    with ProgressDisplay(console) as display:
        result = backend.resume(found, display.context(output, overwrite))
    print_result(console, result, as_json)


def _line(job: OpenTask, free: bool) -> str:
    task = f"task {job.remote_id}" if job.remote_id else "answer lost" if free else "being submitted"
    task += "" if free else " (another process is working on it)"
    return f"{job.job_id}  {job.backend}  {job.created_at:%Y-%m-%d %H:%M} UTC  {task}  {job.request.prompt[:40]!r}"
