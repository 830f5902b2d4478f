"""What ``serve`` and ``ui`` have in common: their flags, and the way from these to a running server."""

from __future__ import annotations

import typing
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from ...config import GIB, model_names
from ...config.extras import require_extra, require_ray
from ...config.rewriting import DEFAULT_MODEL
from ...schema import RewriteMode
from ...server.config import MAX_VOXELS
from .console import log_to_stderr
from .options import Duration, context_parallel_options, data_dir_option, model_option, tuning_options, worker_options
from .rewriting_and_safety import REWRITERS, guard_options, rewriting_from, safety_from
from .worker_pool import executor_options, make_pool

if TYPE_CHECKING:
    from fastapi import FastAPI

    from ...backends.local.backend import LocalBackend
    from ...jobs.folder import DataFolder
    from ...jobs.pool import Pool
    from ...jobs.store import JobStore
    from ...server.config import ServerConfig

# Of pictures of the unfinished video; a map of 16 latents to 3 colours costs next to nothing.
_PREVIEW_EVERY = 1


def server_options(command: Callable) -> Callable:
    """Every flag of a server; :func:`run_server` takes what they give."""
    options = [
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
    if flags["executor"] == "ray":
        require_ray()
    from ...backends.local.backend import LocalBackend
    from ...backends.local.profile_choice import require_libraries
    from ...jobs.folder import DataFolder
    from ...server.config import ServerConfig, check_binding, read_api_keys
    from ...server.process import serve
    from ...weights.cache import is_here
    from ...weights.source import check_obtainable

    log_to_stderr()
    model = flags.pop("model")
    workers = {
        "revision": flags.pop("revision"), "profile": flags.pop("profile"), "lora": flags.pop("lora"),
        "cache": flags.pop("cache"),
    }  # fmt: skip
    # Refuses unknown names before anything is started.
    backend = LocalBackend(model, **workers)
    if flags["executor"] != "ray":  # whose nodes have libraries of their own
        require_libraries(backend.config, backend.profile)
    check_obtainable(backend.config)  # a worker that cannot load it would only say so in the log
    keys = read_api_keys(flags.pop("api_keys_file"))
    host, port = flags.pop("host"), flags.pop("port")
    check_binding(host, keys, flags["insecure"])
    folder = DataFolder(flags.pop("data_dir"))
    store = folder.store()
    names = (
        "lease_s", "checkpoint_every", "workers", "executor", "ray_address", "num_replicas", "context_parallel",
        "context_parallel_mode",
    )  # fmt: skip
    workers |= {name: flags.pop(name) for name in names}
    # Whoever runs the server decides whether it loads a language model.
    named = flags["rewrite"] not in (None, "off") or any(flags[name] for name in REWRITERS)
    can_rewrite = named or is_here(DEFAULT_MODEL)
    workers |= {"min_free_gib": flags["min_free_gib"], "rewriting": rewriting_from(flags), "safety": safety_from(flags)}
    can_change = with_page and workers["executor"] == "processes" and workers["workers"] != 0
    config = ServerConfig(
        model=backend.config,
        profile=workers["profile"],
        models=_other_models(backend) if can_change else (),
        api_keys=keys,
        can_rewrite=can_rewrite,
        min_free_bytes=round(flags.pop("min_free_gib") * GIB),
        **flags,
    )
    # By the name that was given: a folder's own name alone would not be found.
    pool = _make_pool(
        model or config.model.name,
        config,
        store,
        folder,
        workers | {"preview_every": _PREVIEW_EVERY if with_page else 0},
    )
    serve(
        config, folder, store, pool, host=host, port=port, say=lambda text: click.echo(text, err=True),
        install=install, on_listening=on_listening,
    )  # fmt: skip


def _other_models(backend: LocalBackend) -> tuple[str, ...]:
    """What the page may ask for besides the server's own model."""
    return tuple(name for name in model_names() if name != backend.config.name)


def _make_pool(own: str, config: ServerConfig, store: JobStore, folder: DataFolder, options: dict[str, Any]) -> Pool:
    """The workers of the server's model; where the page may ask for other models, such as change between them.

    Args:
        own: the server's model, as ``--model`` takes it.
    """
    if not config.models:
        return make_pool(store, folder, model=own, **options)
    from ...jobs.switching_pool import ModelWorkers, SwitchingPool

    def make(model_workers: ModelWorkers) -> Pool:
        is_own = model_workers.model == config.model.name
        chosen = (
            options
            | {"profile": model_workers.profile}
            | ({} if is_own else {"revision": None, "lora": (), "cache": None})
        )
        model = own if is_own else model_workers.model
        return make_pool(store, folder, model=model, extra=["--queue", model_workers.queue], **chosen)

    return SwitchingPool(store, make, ModelWorkers(config.model.name, config.profile, config.model.identity))
