"""``hunyuan-local serve``: the hosted services' formats and the OpenAI-style one, on a machine of one's own."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import rich_click as click

from ..config import GIB, LoraConfig
from ..errors import ConfigError
from ..server.config import MAX_VOXELS
from .console import log_to_stderr
from .options import (
    Duration,
    context_parallel_options,
    data_dir_option,
    model_option,
    tuning_options,
    worker_options,
)
from .pools import executor_options, make_pool


@click.command(name="serve")
@model_option
@tuning_options
@context_parallel_options
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; any other needs keys.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes any free one.")
@data_dir_option
@partial(executor_options, fewest_workers=0)
@click.option("--api-keys-file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Keys, one a line, of which a client must show one; HUNYUAN_LOCAL_API_KEYS has more.")  # fmt: skip
@click.option("--insecure", is_flag=True, help="Listen for other machines without keys.")
@click.option("--public-url", metavar="URL", help="The address that clients see, for the links to videos, such as "
              "https://video.example.org; each request's own if left out.")  # fmt: skip
@click.option("--relaxed", is_flag=True, help="Take what the local model can do, not only a dialect's own ranges.")
@click.option("--max-queue", type=click.IntRange(min=1), default=100, show_default=True, metavar="N",
              help="So many jobs may wait; more are refused with 429.")  # fmt: skip
@click.option("--max-attempts", type=click.IntRange(min=1), default=3, show_default=True, metavar="N",
              help="Run a job so many times if its worker dies.")  # fmt: skip
@click.option("--max-prompt-characters", type=click.IntRange(min=1), default=5000, show_default=True, metavar="N")
@click.option("--max-voxels", type=click.IntRange(min=1), default=MAX_VOXELS, metavar="N", show_default=True,
              help="Width x height x frames of one video.")  # fmt: skip
@click.option("--retention", "retention_s", type=Duration(), default="7d", show_default=True, metavar="TIME",
              help="Delete finished jobs and their videos after so long.")  # fmt: skip
@click.option("--video-url-ttl", "video_url_ttl_s", type=Duration(), default="1h", show_default=True, metavar="TIME",
              help="How long the link to a video works.")  # fmt: skip
@click.option("--sync-timeout", "sync_timeout_s", type=Duration(), default="10m", show_default=True, metavar="TIME",
              help="How long a call that waits for its video waits.")  # fmt: skip
@worker_options
@click.option("--allow-private-webhooks", is_flag=True, help="Webhooks may lead to this machine and private networks.")
def command(
    model: str | None,
    revision: str | None,
    profile: str | None,
    lora: tuple[LoraConfig, ...],
    cache: str | None,
    context_parallel: int | None,
    context_parallel_mode: str | None,
    host: str,
    port: int,
    data_dir: Path | None,
    workers: int | None,
    executor: Literal["processes", "ray"],
    ray_address: str | None,
    num_replicas: int | None,
    api_keys_file: Path | None,
    insecure: bool,
    lease_s: float,
    checkpoint_every: int | None,
    min_free_gib: float,
    **limits: Any,
) -> None:
    """Serve WaveSpeed's, Novita's and OpenAI's video formats, with the work done by workers of its own.

    Jobs are on disk before their ids are told; after a crash or a restart they go on. SIGTERM and
    Ctrl-C save the state of the unfinished video and end the server.
    """
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"serve needs the extra 'server': pip install 'hunyuan-local[server]' ({error})") from error
    from ..backends.local import LocalBackend
    from ..jobs.folder import DataFolder
    from ..server.config import ServerConfig, check_binding, read_api_keys
    from ..server.process import serve
    from ..weights.source import check_obtainable

    log_to_stderr()
    backend = LocalBackend(model, profile, revision, lora, cache)  # refuses unknown names before anything is started
    check_obtainable(backend.config)  # a worker that cannot load it would only say so in the log
    keys = read_api_keys(api_keys_file)
    check_binding(host, keys, insecure)
    config = ServerConfig(
        model=backend.config, api_keys=keys, insecure=insecure, min_free_bytes=round(min_free_gib * GIB), **limits
    )
    folder = DataFolder(data_dir)
    store = folder.store()
    pool = make_pool(
        store, folder, model=model or backend.config.name, revision=revision, profile=profile, lora=lora, cache=cache,
        lease_s=lease_s, checkpoint_every=checkpoint_every, min_free_gib=min_free_gib, workers=workers,
        executor=executor, ray_address=ray_address, num_replicas=num_replicas,
        context_parallel=context_parallel, context_parallel_mode=context_parallel_mode,
    )  # fmt: skip
    serve(config, folder, store, pool, host=host, port=port, say=lambda text: click.echo(text, err=True))
