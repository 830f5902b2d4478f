"""The workers of ``serve`` and ``batch``: their flags, and the pool that these describe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import rich_click as click

from ..config import LoraConfig
from ..jobs.folder import DataFolder
from ..jobs.pool import Pool, WorkerPool, worker_environments
from ..jobs.store import JobStore


def executor_options(command: Callable) -> Callable:
    """``--workers``, ``--executor``, ``--ray-address`` and ``--num-replicas``."""
    command = click.option("--num-replicas", type=click.IntRange(min=1), metavar="N")(command)
    command = click.option("--ray-address", metavar="ADDRESS")(command)
    command = click.option("--executor", type=click.Choice(["processes", "ray"]), default="processes")(command)
    return click.option("--workers", type=click.IntRange(min=1), metavar="N")(command)


def make_pool(
    store: JobStore,
    folder: DataFolder,
    *,
    model: str,
    revision: str | None,
    profile: str | None,
    lora: Sequence[LoraConfig],
    cache: str | None,
    lease_s: float,
    checkpoint_every: int,
    min_free_gib: float,
    workers: int | None,
    executor: Literal["processes", "ray"] = "processes",
    ray_address: str | None = None,
    num_replicas: int | None = None,
    extra: Sequence[str] = (),
    log_dir: Path | None = None,
) -> Pool:
    chosen = {"--model": model, "--revision": revision, "--profile": profile, "--cache": cache}
    options = [(name, value) for name, value in chosen.items() if value is not None]
    options += [("--lora", f"{item.path}={item.scale}") for item in lora]
    options += [
        ("--data-dir", folder.root), ("--lease", lease_s), ("--checkpoint-every", checkpoint_every),
        ("--min-free-gib", min_free_gib),
    ]  # fmt: skip
    environments = worker_environments(workers or 1, 0)
    return WorkerPool(store, [*(str(part) for option in options for part in option), *extra], environments, log_dir)
