"""The workers of ``serve`` and ``batch``: their flags, and the pool that these describe."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import rich_click as click

from ...config import GIB, LoraConfig, RewriteConfig, RuntimeProfile, SafetyConfig, load_model_config, profile_names
from ...errors import ConfigError
from ...jobs.folder import DataFolder
from ...jobs.pool import Pool, WorkerPool, worker_environments
from ...jobs.store import JobStore
from .rewriting_and_safety import guard_flags


def executor_options(command: Callable, *, fewest_workers: int = 1) -> Callable:
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
    *,
    model: str,
    revision: str | None,
    profile: str | None,
    lora: Sequence[LoraConfig],
    cache: str | None,
    lease_s: float,
    checkpoint_every: int | None,
    min_free_gib: float,
    workers: int | None,
    executor: Literal["processes", "ray"] = "processes",
    ray_address: str | None = None,
    num_replicas: int | None = None,
    context_parallel: int | None = None,
    context_parallel_mode: str | None = None,
    preview_every: int = 0,
    rewriting: RewriteConfig | None = None,
    safety: SafetyConfig | None = None,
    extra: Sequence[str] = (),
    log_dir: Path | None = None,
) -> Pool:
    """The workers on the jobs of a store, not started yet.

    Args:
        model: named, since a worker that chose for itself, on a device that fails to answer, would wait for jobs of
            another model.
        extra: more options of ``hunyuan-local worker``, such as ``--encode-ahead``.
        log_dir: where each worker's log goes; this process's standard error if None.

    Raises:
        ConfigError: an option of the other executor; more workers than GPUs; or Ray cannot be used.
    """
    from ...backends.local.profile_choice import named_profile
    from ...backends.multi_gpu import limits

    _check_options(executor, workers, ray_address, num_replicas)
    _, shared = limits.context_parallel(named_profile(profile), context_parallel, context_parallel_mode)
    each = 1 if shared is None else shared.degree
    if executor == "ray":
        from ...jobs.ray_workers.pool import RayPool
        from ...jobs.ray_workers.replica import ReplicaConfig

        settings = {
            "lease_s": lease_s, "checkpoint_every": checkpoint_every, "min_free_bytes": round(min_free_gib * GIB),
            "preview_every": preview_every, "rewriting": rewriting or RewriteConfig(),
            "safety": safety or SafetyConfig(),
        }  # fmt: skip
        named = _profile_for_nodes(profile)
        config = ReplicaConfig(
            load_model_config(model), revision, named, _for_nodes(lora), cache, context_parallel,
            context_parallel_mode, settings | _as_fields(extra),
        )  # fmt: skip
        device = named.device if isinstance(named, RuntimeProfile) else None
        return RayPool(
            store, folder, config, num_replicas, address=ray_address, device=device, each=each, log_dir=log_dir
        )

    chosen = {
        "--model": model, "--revision": revision, "--profile": profile, "--cache": cache,
        "--context-parallel": context_parallel, "--context-parallel-mode": context_parallel_mode,
        "--checkpoint-every": checkpoint_every,
    }  # fmt: skip
    options = [(name, value) for name, value in chosen.items() if value is not None]
    options += [("--lora", f"{item.path}={item.scale}") for item in lora]
    options += [
        ("--data-dir", folder.root), ("--lease", lease_s), ("--min-free-gib", min_free_gib),
        ("--preview-every", preview_every),
    ]  # fmt: skip
    gpus = 0 if workers == 0 else _gpus(profile)
    environments = worker_environments(max(1, gpus // each) if workers is None else workers, gpus, each)
    flat = [str(part) for option in options for part in option]
    guards = guard_flags(rewriting or RewriteConfig(), safety or SafetyConfig())
    return WorkerPool(store, [*flat, *guards, *extra], environments, log_dir)


def _check_options(executor: str, workers: int | None, ray_address: str | None, num_replicas: int | None) -> None:
    """Refuse what says nothing to the executor that was chosen."""
    if executor == "ray":
        if workers is not None:
            raise ConfigError(f"workers={workers}: with --executor ray, give --num-replicas in its place")
        if num_replicas is None:
            raise ConfigError("num_replicas: must be given with --executor ray, such as --num-replicas 4")
        return
    given = {"num_replicas": num_replicas, "ray_address": ray_address}
    for name, value in given.items():
        if value is not None:
            remedy = "give --executor ray" + (", or --workers in its place" if name == "num_replicas" else "")
            raise ConfigError(f"{name}={value!r}: is for Ray alone; {remedy}")


def _profile_for_nodes(profile: str | None) -> str | RuntimeProfile | None:
    """A profile of a file as it is read here; a mode of the plan by its name, for each machine to understand."""
    from ...backends.local.profile_choice import named_profile

    is_file = profile is not None and (profile in profile_names() or profile.endswith((".yaml", ".yml")))
    return named_profile(profile) if is_file else profile


def _for_nodes(lora: Sequence[LoraConfig]) -> tuple[LoraConfig, ...]:
    """Adapters that every machine finds under the same name."""
    for item in lora:
        if not Path(item.path).is_absolute() and Path(item.path).is_file():
            raise ConfigError(
                f"lora={item.path!r}: other machines do not have this folder to start from; give the whole path, "
                "where every machine of the cluster has the file"
            )
    return tuple(lora)


def _as_fields(options: Sequence[str]) -> dict[str, bool]:
    """Switches of ``hunyuan-local worker`` as fields of a worker's config: ``--encode-ahead`` is ``encode_ahead``."""
    from ...jobs.worker_config import WorkerConfig

    known = {field.name for field in dataclasses.fields(WorkerConfig) if field.default is False}
    switches = {option.removeprefix("--").replace("-", "_"): True for option in options}
    if unknown := switches.keys() - known:
        raise ConfigError(
            f"{', '.join(sorted(unknown))}: not a switch of the workers in Ray: {', '.join(sorted(known))}"
        )
    return switches


def _gpus(profile: str | None) -> int:
    """How many GPUs the workers may have; torch is not loaded only to learn that a profile wants none."""
    from ...backends.local.profile_choice import named_profile

    named = named_profile(profile)
    if named is not None and named.device == "cpu":
        return 0
    from ...pipeline.memory.device import gpu_count

    return gpu_count()
