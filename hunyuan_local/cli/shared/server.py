"""What ``serve`` and ``ui`` have in common: their flags, and the way from these to a running server."""

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

# Of pictures of the unfinished video; a map of 16 latents to 3 colours costs next to nothing.
_PREVIEW_EVERY = 1


def server_options(command: Function) -> Function:
    """Every flag of a server; :func:`run_server` takes what they give."""
    options: list[Callable[[Function], Function]] = [
        model_option,
        tuning_options,
        context_parallel_options,
        click.option("--host", default="127.0.0.1", show_default=True,
                     help="Address to listen on; any other needs keys."),
        click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True,
                     help="0 takes any free one."),
        data_dir_option,
        partial(executor_options, fewest_workers=0),
        click.option("--api-keys-file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
                     help="Keys, one a line, of which a client must show one; HUNYUAN_LOCAL_API_KEYS has more."),
        click.option("--insecure", is_flag=True, help="Listen for other machines without keys."),
        click.option("--allow-origin", "allow_origins", multiple=True, metavar="ORIGIN", help="Let browsers call the "
                     "server for web pages of this origin, such as https://app.example; may be given several times. "
                     "* is every page on the web: without keys, each one that anybody opens on this machine."),
        click.option("--public-url", metavar="URL", help="The address that clients see, for the links to videos, such "
                     "as https://video.example.org; each request's own if left out."),
        click.option("--relaxed", is_flag=True, help="Take what the local model can do, not only a dialect's own "
                     "ranges."),
        click.option("--rewrite", type=click.Choice(typing.get_args(RewriteMode)), help="Rewrite the prompts of "
                     "submissions that do not say whether; off if left out."),
        click.option("--max-queue", type=click.IntRange(min=1), default=100, show_default=True, metavar="N",
                     help="So many jobs may wait; more are refused with 429."),
        click.option("--max-attempts", type=click.IntRange(min=1), default=3, show_default=True, metavar="N",
                     help="Run a job so many times if its worker dies."),
        click.option("--max-prompt-characters", type=click.IntRange(min=1), default=5000, show_default=True,
                     metavar="N"),
        click.option("--max-voxels", type=click.IntRange(min=1), default=MAX_VOXELS, metavar="N", show_default=True,
                     help="Width x height x frames of one video."),
        click.option("--retention", "retention_s", type=Duration(), default="7d", show_default=True, metavar="TIME",
                     help="Delete finished jobs and their videos after so long."),
        click.option("--video-url-ttl", "video_url_ttl_s", type=Duration(), default="1h", show_default=True,
                     metavar="TIME", help="How long the link to a video works."),
        click.option("--sync-timeout", "sync_timeout_s", type=Duration(), default="10m", show_default=True,
                     metavar="TIME", help="How long a call that waits for its video waits."),
        worker_options,
        guard_options,
        click.option("--allow-private-webhooks", is_flag=True,
                     help="Webhooks may lead to this machine and private networks."),
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
        flags: those of :func:`server_options`.
        with_page: workers write pictures of unfinished videos, and change to another model when the page asks for it.
        install: adds the page to the app.
        on_listening: told the address.

    Raises:
        ConfigError: the extra is missing, an option cannot be used, or the address cannot be had.
    """
    require_extra("server", "the server")
    placement = Placement.from_flags(flags)
    if placement.executor == "ray":
        require_ray()
    from ...backends.local.backend import LocalBackend
    from ...backends.local.profile_choice import require_libraries
    from ...jobs.folder import DataFolder
    from ...provenance import check_source_date
    from ...server.config import ServerConfig, check_binding, check_origins, read_api_keys
    from ...server.process import serve
    from ...weights.added_files import check_added_files
    from ...weights.cache import is_here
    from ...weights.source import check_obtainable

    check_source_date()  # or every job would be refused
    log_to_stderr()
    flags = flags | guards_from(flags)
    options = worker_options_from(flags).model_copy(update={"preview_every": _PREVIEW_EVERY if with_page else 0})
    # Refuses unknown names before anything is started.
    backend = LocalBackend(options.model, options.profile, options.revision, options.lora, options.cache)
    if placement.executor != "ray":  # whose nodes have libraries of their own
        require_libraries(backend.config, backend.profile)
        check_added_files(backend.config)
    check_obtainable(backend.config)  # a worker that cannot load it would only say so in the log
    keys = read_api_keys(flags["api_keys_file"])
    check_binding(flags["host"], keys, flags["insecure"])
    check_origins(flags["allow_origins"])
    if "*" in flags["allow_origins"]:
        who = "that has a key" if keys else "that anybody opens who reaches this server"
        click.echo(f"note: --allow-origin '*': every web page {who} can make, see and delete videos here", err=True)
    folder = DataFolder(options.data_dir)
    store = folder.store()
    # Whoever runs the server decides whether it loads a language model.
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
    # By the name that was given: a folder's own name alone would not be found.
    options = options.model_copy(update={"model": options.model or config.model.name})
    pool = _make_pool(config, store, folder, options, placement)
    serve(
        config, folder, store, pool, host=flags["host"], port=flags["port"],
        say=lambda text: click.echo(text, err=True), install=install, on_listening=on_listening,
    )  # fmt: skip


def _other_models(backend: LocalBackend) -> tuple[str, ...]:
    """What the page may ask for besides the server's own model."""
    return tuple(name for name in model_names() if name != backend.config.name)


def _make_pool(
    config: ServerConfig, store: JobStore, folder: DataFolder, options: WorkerOptions, placement: Placement
) -> Pool:
    """The workers of the server's model; where the page may ask for other models, such as change between them.

    Args:
        options: of workers of the server's model.
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
