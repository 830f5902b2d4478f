"""``hunyuan-local resume``: go on with a task at a hosted service that was interrupted."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from ...backends.hosted.open_tasks import OpenTask, OpenTasks
from ...backends.registry import get_backend
from ...errors import ConfigError
from ..shared.console import ProgressDisplay, print_result, stderr


@click.command(name="resume")
@click.argument("job", required=False)
@click.option("--api-key", metavar="KEY", help="As for generate.")
@click.option("--timeout", "timeout_s", type=float, metavar="SECONDS", help="As for generate, from now on.")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Another file than was asked for.")
@click.option("--overwrite", is_flag=True, help="Replace the output file if it exists.")
@click.option("--forget", is_flag=True, help="Do not go on: strike the job from the list of open ones.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one line of JSON, the last of stdout.")
def command(
    job: str | None,
    api_key: str | None,
    timeout_s: float | None,
    output: Path | None,
    overwrite: bool,
    forget: bool,
    as_json: bool,
) -> None:
    """Wait for the task of JOB and fetch its video; nothing is submitted.

    JOB is the name that generate told, or the task's id at the service. Without JOB the open ones
    are listed.
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
        raise ConfigError(f"job {found.job_id}: the backend {found.backend} has no tasks to go on with")
    with ProgressDisplay(console) as display:
        result = backend.resume(found, display.context(output, overwrite))
    print_result(console, result, as_json)


def _line(job: OpenTask, free: bool) -> str:
    task = f"task {job.remote_id}" if job.remote_id else "answer lost" if free else "being submitted"
    task += "" if free else " (in work)"
    return f"{job.job_id}  {job.backend}  {job.created_at:%Y-%m-%d %H:%M} UTC  {task}  {job.request.prompt[:40]!r}"
