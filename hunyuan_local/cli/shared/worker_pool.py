"""Options for the workers of ``serve`` and ``batch``, and the pool that they describe."""

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
    """Where the workers run: the options of :func:`executor_options`."""

    executor: Literal["processes", "ray"] = "processes"
    workers: int | None = None
    ray_address: str | None = None
    num_replicas: int | None = None

    @classmethod
    def from_flags(cls, flags: Mapping[str, Any]) -> Placement:
        """Select the placement options from all options of a command."""
        return cls(**{field.name: flags[field.name] for field in fields(cls)})

    def check(self) -> None:
        """Refuse options that do not apply to the chosen executor.

        Raises:
            ConfigError: names the option.
        """
        if self.executor == "ray":
            if self.workers is not None:
                raise ConfigError(f"workers={self.workers}: with --executor ray, use --num-replicas instead")
            if self.num_replicas is None:
                raise ConfigError("num_replicas: must be given with --executor ray, such as --num-replicas 4")
            return
        for name in ("num_replicas", "ray_address"):
            if (value := getattr(self, name)) is not None:
                remedy = "add --executor ray" + (", or use --workers instead" if name == "num_replicas" else "")
                raise ConfigError(f"{name}={value!r}: applies only to Ray; {remedy}")


def worker_options_from(flags: Mapping[str, Any]) -> WorkerOptions:
    """Build worker options from the options of a command that have the name of a field; ignore the others."""
    return WorkerOptions(**{name: flags[name] for name in WorkerOptions.model_fields if name in flags})


def executor_options(command: Function, *, fewest_workers: int = 1) -> Function:
    """Add ``--workers``, ``--executor``, ``--ray-address`` and ``--num-replicas``."""
    none = " With 0, run 'hunyuan-local worker' separately." if fewest_workers == 0 else ""
    command = click.option(
        "--num-replicas", type=int, metavar="N",
        help="Number of Ray workers, required with --executor ray. Each gets one GPU, or as many as "
        "--context-parallel, or one core with a CPU profile.",
    )(command)  # fmt: skip
    command = click.option(
        "--ray-address", metavar="HOST:PORT",
        show_default="RAY_ADDRESS, or a temporary local cluster",
        help="Head of a Ray cluster that this machine belongs to, or auto to find it.",
    )(command)  # fmt: skip
    command = click.option(
        "--executor", type=click.Choice(["processes", "ray"]), default="processes", show_default=True,
        help="Run workers as processes on this machine, or as actors in a Ray cluster.",
    )(command)  # fmt: skip
    return click.option(
        "--workers", type=click.IntRange(min=fewest_workers), metavar="N",
        show_default="one per visible GPU, at least 1", help=f"Number of worker processes.{none}",
    )(command)  # fmt: skip


def make_pool(
    store: JobStore,
    folder: DataFolder,
    options: WorkerOptions,
    placement: Placement,
    log_dir: Path | None = None,
) -> Pool:
    """Create the workers for a job store without starting them.

    Args:
        options: options of each worker. They must name the model: if each worker chose it from the devices it sees, a
            worker with a broken GPU would wait for jobs of another model.
        log_dir: folder of the workers' logs; None logs to this process's standard error.

    Raises:
        ConfigError: an option applies to the other executor, there are more workers than GPUs, or Ray is unusable.
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
    """Replace names of local config files by their content, so that other machines need no copies.

    Raises:
        ConfigError: a LoRA has a relative path, which other machines cannot resolve.
    """
    for item in options.lora:
        if not Path(item.path).is_absolute() and Path(item.path).is_file():
            raise ConfigError(
                f"lora={item.path!r}: other machines cannot resolve a relative path; give an absolute path that exists "
                "on every machine of the cluster"
            )
    model, profile = options.model, options.profile
    if isinstance(model, str):
        model = load_model_config(model)
    if isinstance(profile, str):
        profile = _profile_for_nodes(profile)
    return options.model_copy(update={"model": model, "profile": profile})


def _profile_for_nodes(profile: str) -> str | RuntimeProfile | None:
    """Read a profile from a file here; leave a mode of the plan as a name, which each machine resolves itself."""
    from ...backends.local.profile_choice import named_profile

    is_file = profile in profile_names() or profile.endswith((".yaml", ".yml"))
    return named_profile(profile) if is_file else profile


def _gpus(profile: RuntimeProfile | None) -> int:
    """Number of GPUs for the workers; does not load torch for a CPU profile."""
    if profile is not None and profile.device == "cpu":
        return 0
    from ...pipeline.memory.device import gpu_count

    return gpu_count()
