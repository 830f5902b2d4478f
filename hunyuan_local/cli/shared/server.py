"""Options of ``serve`` and ``ui``, and the server that they describe."""

from __future__ import annotations

import typing
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from ...config import model_names
from ...config.extras import require_extra, require_ray
from ...config.rewriting import DEFAULT_MODEL
from ...schema import RewriteMode
from ...server.config import MAX_VOXELS
from .console import log_to_stderr
from .options import (
    Duration,
    Function,
    context_parallel_options,
    data_dir_option,
    model_option,
    tuning_options,
    worker_options,
)
from .rewriting_and_safety import guard_options, guards_from
from .worker_pool import Placement, executor_options, make_pool, worker_options_from

if TYPE_CHECKING:
    from fastapi import FastAPI

    from ...backends.local.backend import LocalBackend
    from ...jobs.folder import DataFolder
    from ...jobs.pool import Pool
    from ...jobs.store import JobStore
    from ...jobs.worker_config import WorkerOptions
    from ...server.config import ServerConfig

# Steps between preview images; mapping 16 latent channels linearly to RGB costs almost nothing.
_PREVIEW_EVERY = 1


def server_options(command: Function) -> Function:
    """Add every option of a server; :func:`run_server` takes their values."""
    options: list[Callable[[Function], Function]] = [
        model_option,
        tuning_options,
        context_parallel_options,
        click.option("--host", default="127.0.0.1", show_default=True,
                     help="Address to listen on; other addresses require API keys or --insecure."),
        click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, metavar="PORT",
                     help="Port to listen on; 0 picks a free port."),
        data_dir_option,
        partial(executor_options, fewest_workers=0),
        click.option("--api-keys-file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
                     help="Require one of these API keys, one per line, or one from HUNYUAN_LOCAL_API_KEYS."),
        click.option("--insecure", is_flag=True, help="Allow other machines to connect without API keys."),
        click.option("--allow-origin", "allow_origins", multiple=True, metavar="ORIGIN", help="Allow web pages of this "
                     "origin (CORS), such as https://app.example. Repeatable. * allows every web page; without API "
                     "keys, that includes any page opened on this machine."),
        click.option("--public-url", metavar="URL", show_default="the address of each request", help="Base URL of "
                     "links to videos, such as https://video.example.org."),
        click.option("--relaxed", is_flag=True, help="Accept everything that the local model supports, even if a "
                     "service's own API does not."),
        click.option("--rewrite", type=click.Choice(typing.get_args(RewriteMode)), show_default="off",
                     help="How to rewrite prompts if the request does not specify it."),
        click.option("--max-queue", type=click.IntRange(min=1), default=100, show_default=True, metavar="N",
                     help="Maximum number of queued jobs; further jobs are refused with 429."),
        click.option("--max-attempts", type=click.IntRange(min=1), default=3, show_default=True, metavar="N",
                     help="Maximum number of attempts for a job if its worker dies."),
        click.option("--max-prompt-characters", type=click.IntRange(min=1), default=5000, show_default=True,
                     metavar="N", help="Maximum length of a prompt."),
        click.option("--max-voxels", type=click.IntRange(min=1), default=MAX_VOXELS, metavar="N", show_default=True,
                     help="Maximum width x height x frames of a video."),
        click.option("--retention", "retention_s", type=Duration(), default="7d", show_default=True, metavar="TIME",
                     help="Delete finished jobs and their videos after this time."),
        click.option("--video-url-ttl", "video_url_ttl_s", type=Duration(), default="1h", show_default=True,
                     metavar="TIME", help="How long a link to a video works."),
        click.option("--sync-timeout", "sync_timeout_s", type=Duration(), default="10m", show_default=True,
                     metavar="TIME", help="Time limit for a synchronous request."),
        worker_options,
        guard_options,
        click.option("--allow-private-webhooks", is_flag=True,
                     help="Allow webhook URLs on this machine and in private networks."),
        click.option("--allow-private-images", is_flag=True,
                     help="Allow image URLs on this machine and in private networks."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def run_server(
    flags: dict[str, Any],
    *,
    with_page: bool,
    install: Callable[[FastAPI], None] = lambda app: None,
    on_listening: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Args:
        flags: values of :func:`server_options`.
        with_page: workers write preview images, and switch to another model when the page requests it.
        install: adds the page to the app.
        on_listening: called with the address.

    Raises:
        ConfigError: the extra is missing, an option cannot be used, or the address is not available.
    """
    require_extra("server", "the server")
    placement = Placement.from_flags(flags)
    if placement.executor == "ray":
        require_ray()
    from ...backends.local.backend import LocalBackend
    from ...backends.local.profile_choice import require_libraries
    from ...jobs.folder import DataFolder
    from ...planner.added_files import check_added_files
    from ...provenance import check_source_date
    from ...server.config import ServerConfig, check_binding, check_origins, read_api_keys
    from ...server.process import serve
    from ...weights.cache import is_here
    from ...weights.source import check_obtainable

    check_source_date()  # otherwise every job would fail
    log_to_stderr()
    flags = flags | guards_from(flags)
    options = worker_options_from(flags).model_copy(update={"preview_every": _PREVIEW_EVERY if with_page else 0})
    # Refuse unknown names before starting anything.
    backend = LocalBackend(options.model, options.profile, options.revision, options.lora, options.cache)
    if placement.executor != "ray":  # Ray nodes have their own installations
        require_libraries(backend.config, backend.profile)
        check_added_files(backend.config)
    check_obtainable(backend.config)  # a worker that cannot load the model would report it only in the log
    keys = read_api_keys(flags["api_keys_file"])
    check_binding(flags["host"], keys, flags["insecure"])
    check_origins(flags["allow_origins"])
    if "*" in flags["allow_origins"]:
        who = "with a key" if keys else "opened by anyone who can reach this server"
        click.echo(f"note: --allow-origin '*': every web page {who} can create, view and delete videos", err=True)
    folder = DataFolder(options.data_dir)
    store = folder.store()
    # Only the operator can make the server download and load a language model.
    rewriting = options.rewriting
    named = flags["rewrite"] not in (None, "off") or rewriting.model_id or rewriting.endpoint
    can_change = with_page and placement.executor == "processes" and placement.workers != 0
    config = ServerConfig(
        **{name: flags[name] for name in ServerConfig.model_fields.keys() & flags.keys() - {"model"}},
        model=backend.config,
        models=_other_models(backend) if can_change else (),
        api_keys=keys,
        can_rewrite=bool(named) or is_here(DEFAULT_MODEL),
    )
    # Pass the model as given: workers could not find a folder by its bare name.
    options = options.model_copy(update={"model": options.model or config.model.name})
    pool = _make_pool(config, store, folder, options, placement)
    serve(
        config, folder, store, pool, host=flags["host"], port=flags["port"],
        say=lambda text: click.echo(text, err=True), install=install, on_listening=on_listening,
    )  # fmt: skip


def _other_models(backend: LocalBackend) -> tuple[str, ...]:
    """Models that the page may request besides the server's own."""
    return tuple(name for name in model_names() if name != backend.config.name)


def _make_pool(
    config: ServerConfig, store: JobStore, folder: DataFolder, options: WorkerOptions, placement: Placement
) -> Pool:
    """The worker pool; if the page may request other models, one that switches between models.

    Args:
        options: options of workers for the server's model.
    """
    if not config.models:
        return make_pool(store, folder, options, placement)
    from ...jobs.switching_pool import ModelWorkers, SwitchingPool

    def make(model_workers: ModelWorkers) -> Pool:
        changed: dict[str, Any] = {"profile": model_workers.profile, "queue": model_workers.queue}
        if model_workers.model != config.model.name:
            changed |= {"model": model_workers.model, "revision": None, "lora": (), "cache": None}
        return make_pool(store, folder, options.model_copy(update=changed), placement)

    return SwitchingPool(store, make, ModelWorkers(config.model.name, config.profile, config.model.identity))
