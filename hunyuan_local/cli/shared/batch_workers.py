"""Who makes the videos of a batch: the backend's own limits, its weights, and the pool of workers."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from ...backends.base import Backend
from ...backends.hosted.spending import Budget
from ...backends.prompt_rewriting import PromptRewriter
from ...batch.check import CheckSize
from ...batch.run import Batch
from ...errors import ConfigError
from ...jobs.pool import Pool
from .console import ProgressDisplay
from .options import backend_from
from .worker_pool import Placement, make_pool, worker_options_from

_LOCAL_ONLY = ("workers", "executor", "ray_address", "num_replicas")


def make_batch_pool(batch: Batch, backend: Backend, flags: dict[str, Any], budget: Budget | None) -> Pool:
    """The workers of this machine, of Ray or at a service, not started yet.

    Args:
        flags: of the command, as given.
        budget: of a service; None is the local backend.

    Raises:
        ConfigError: more workers than GPUs, or options that contradict each other.
    """
    options = worker_options_from(flags)
    if budget is not None:
        from ...backends.hosted.backend import HostedBackend
        from ...batch.service_pool import ServicePool

        shared = PromptRewriter(max_characters=backend.capabilities.prompt_characters)

        def make_backend() -> Backend:
            made = backend_from(dict(flags))
            # Or each thread would load a language model of its own.
            if options.rewriting.endpoint is None and isinstance(made, HostedBackend):
                made.share(shared)
            return made

        return ServicePool(batch.folder, batch.store, make_backend, flags["concurrency"] or 1, budget, options)
    assert backend.config is not None  # a service has a budget
    options = options.model_copy(update={"model": options.model or backend.config.name, "encode_ahead": True})
    return make_pool(
        batch.store, batch.folder, options, Placement.from_flags(flags), log_dir=batch.folder.root / "logs"
    )


def weights_of(console: Console, backend: Backend) -> str:
    """Identity of the local weights, with those that are added to them; downloaded now if they are not here.

    Empty at a service, of whose weights nothing is known.

    Raises:
        ConfigError, ModelLoadError: they are not here, and may or can not be fetched.
    """
    config = backend.config
    if config is None:
        return ""
    from ...provenance import weights_identity
    from ...weights.single_file import find_file, sha256_of
    from ...weights.source import provide

    extra = [("lora", item.path, ".safetensors") for item in config.lora]
    if config.transformer_gguf is not None:
        extra.append(("transformer_gguf", config.transformer_gguf, ".gguf"))
    files = [find_file(*file) for file in extra]
    with ProgressDisplay(console) as display:
        folder = provide(config, lambda transfer: display(transfer.progress), display.note)
    return " ".join([weights_identity(folder), *(sha256_of(file) for file in files)])


@contextmanager
def size_check(backend: Backend, flags: dict[str, Any]) -> Iterator[CheckSize | None]:
    """What speaks against a size on this machine; a profile that was named is its user's own decision."""
    from ...backends.local.profile_choice import choose_profile, named_profile
    from ...planner.machine import has_cuda_driver

    config = backend.config
    if config is None or flags["executor"] == "ray" or named_profile(flags["profile"]) is not None:
        yield None
    elif not has_cuda_driver():
        yield lambda request: choose_profile(request, config)
    else:
        # To ask a GPU for its free memory takes some of it for as long as the process lives: the workers need that.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as child:
            yield lambda request: child.submit(choose_profile, request, config).result()


def refuse_foreign(backend: Backend, flags: dict[str, Any], max_cost_usd: float | None) -> None:
    """Refuse options that say nothing to this backend.

    Raises:
        ConfigError: names them.
    """
    if backend.is_paid:
        given = {name: flags[name] for name in _LOCAL_ONLY if flags[name] != "processes"}
    else:
        given = {name: flags[name] for name in ("concurrency", "allow_loss", "submit_again")} | {
            "max_cost": max_cost_usd
        }
    if wrong := [f"--{name.replace('_', '-')}" for name, value in given.items() if value]:
        raise ConfigError(f"{', '.join(wrong)}: no option of the backend {backend.name}; leave it out")
