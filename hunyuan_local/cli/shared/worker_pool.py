"""The workers of ``serve`` and ``batch``: their flags, and the pool that these describe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import rich_click as click

from ...config import RuntimeProfile, load_model_config, profile_names
from ...errors import ConfigError
from ...jobs.folder import DataFolder
from ...jobs.pool import Pool, WorkerPool, worker_environments
from ...jobs.store import JobStore
from ...jobs.worker_config import WorkerOptions
from .options import Function


@dataclass(frozen=True)
class Placement:
    """Where the workers are: the flags of :func:`executor_options`."""

    executor: Literal["processes", "ray"] = "processes"
    workers: int | None = None
    ray_address: str | None = None
    num_replicas: int | None = None

    @classmethod
    def from_flags(cls, flags: Mapping[str, Any]) -> Placement:
        """Those of a command's flags that say where."""
        return cls(**{field.name: flags[field.name] for field in fields(cls)})

    def check(self) -> None:
        """Refuse what says nothing to the executor that was chosen.

        Raises:
            ConfigError: names the flag.
        """
        if self.executor == "ray":
            if self.workers is not None:
                raise ConfigError(f"workers={self.workers}: with --executor ray, give --num-replicas in its place")
            if self.num_replicas is None:
                raise ConfigError("num_replicas: must be given with --executor ray, such as --num-replicas 4")
            return
        for name in ("num_replicas", "ray_address"):
            if (value := getattr(self, name)) is not None:
                remedy = "give --executor ray" + (", or --workers in its place" if name == "num_replicas" else "")
                raise ConfigError(f"{name}={value!r}: is for Ray alone; {remedy}")


def worker_options_from(flags: Mapping[str, Any]) -> WorkerOptions:
    """What a command's flags say of its workers: each flag with the name of a field; others are left alone."""
    return WorkerOptions(**{name: flags[name] for name in WorkerOptions.model_fields if name in flags})


def executor_options(command: Function, *, fewest_workers: int = 1) -> Function:
    """``--workers``, ``--executor``, ``--ray-address`` and ``--num-replicas``."""
    none = " 0 leaves the work to 'hunyuan-local worker'." if fewest_workers == 0 else ""
    command = click.option(
        "--num-replicas", type=int, metavar="N",
        help="Workers in Ray, each with a GPU of its own, or as many as --context-parallel says, or with a core in a "
        "profile for the CPU; needed with --executor ray.",
    )(command)  # fmt: skip
    command = click.option(
        "--ray-address", metavar="HOST:PORT",
        help="The head of a Ray cluster that this machine is a node of, or auto to find it; RAY_ADDRESS if left out, "
        "else a Ray of this machine alone that ends with this command.",
    )(command)  # fmt: skip
    command = click.option(
        "--executor", type=click.Choice(["processes", "ray"]), default="processes", show_default=True,
        help="Where the workers are: processes of this machine, or actors in a Ray cluster.",
    )(command)  # fmt: skip
    return click.option(
        "--workers", type=click.IntRange(min=fewest_workers), metavar="N",
        help=f"Worker processes; one a visible GPU if left out, one without a GPU.{none}",
    )(command)  # fmt: skip


def make_pool(
    store: JobStore,
    folder: DataFolder,
    options: WorkerOptions,
    placement: Placement,
    log_dir: Path | None = None,
) -> Pool:
    """The workers on the jobs of a store, not started yet.

    Args:
        options: of each worker. They name the model, since a worker that chose for itself, on a device that fails to
            answer, would wait for jobs of another model.
        log_dir: where each worker's log goes; this process's standard error if None.

    Raises:
        ConfigError: an option of the other executor; more workers than GPUs; or Ray cannot be used.
    """
    from ...backends.local.profile_choice import named_profile
    from ...backends.multi_gpu import limits

    placement.check()
    profile = options.profile
    named = profile if isinstance(profile, RuntimeProfile) else named_profile(profile)
    _, shared = limits.context_parallel(named, options.context_parallel, options.context_parallel_mode)
    each = 1 if shared is None else shared.degree
    if placement.executor == "ray":
        from ...jobs.ray_workers.pool import RayPool

        return RayPool(
            store, folder, _for_nodes(options), placement.num_replicas or 0, address=placement.ray_address, each=each,
            log_dir=log_dir,
        )  # fmt: skip
    gpus = 0 if placement.workers == 0 else _gpus(named)
    count = max(1, gpus // each) if placement.workers is None else placement.workers
    options = options.model_copy(update={"data_dir": folder.root})
    return WorkerPool(store, options, worker_environments(count, gpus, each), log_dir)


def _for_nodes(options: WorkerOptions) -> WorkerOptions:
    """What is read from files of this machine, as values; LoRAs must be where every machine finds them.

    Raises:
        ConfigError: a LoRA that other machines would not find.
    """
    for item in options.lora:
        if not Path(item.path).is_absolute() and Path(item.path).is_file():
            raise ConfigError(
                f"lora={item.path!r}: other machines do not have this folder to start from; give the whole path, "
                "where every machine of the cluster has the file"
            )
    model, profile = options.model, options.profile
    if isinstance(model, str):
        model = load_model_config(model)
    if isinstance(profile, str):
        profile = _profile_for_nodes(profile)
    return options.model_copy(update={"model": model, "profile": profile})


def _profile_for_nodes(profile: str) -> str | RuntimeProfile | None:
    """A profile of a file as it is read here; a mode of the plan by its name, for each machine to understand."""
    from ...backends.local.profile_choice import named_profile

    is_file = profile in profile_names() or profile.endswith((".yaml", ".yml"))
    return named_profile(profile) if is_file else profile


def _gpus(profile: RuntimeProfile | None) -> int:
    """How many GPUs the workers may have; torch is not loaded only to learn that a profile wants none."""
    if profile is not None and profile.device == "cpu":
        return 0
    from ...pipeline.memory.device import gpu_count

    return gpu_count()
