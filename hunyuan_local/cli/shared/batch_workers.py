"""Workers of a batch: the worker pool, the identity of the weights, and checks of options and sizes."""

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
    """Create the workers on this machine, in Ray or for a service, without starting them.

    Args:
        flags: options of the command, as given.
        budget: spending limit at a service; None for the local backend.

    Raises:
        ConfigError: there are more workers than GPUs, or options contradict each other.
    """
    options = worker_options_from(flags)
    if budget is not None:
        from ...backends.hosted.backend import HostedBackend
        from ...batch.service_pool import ServicePool

        shared = PromptRewriter(max_characters=backend.capabilities.prompt_characters)

        def make_backend() -> Backend:
            made = backend_from(dict(flags))
            # Share one rewriter, or each thread would load its own language model.
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
    """Identity of the local weights including LoRA and GGUF files; downloads missing weights first.

    Empty for a hosted service, which does not identify its weights.

    Raises:
        ConfigError, ModelLoadError: weights are missing and cannot be downloaded, or downloads are not allowed.
    """
    config = backend.config
    if config is None:
        return ""
    from ...provenance import weights_identity
    from ...weights.lora_header import read_header
    from ...weights.single_file import find_file, sha256_of
    from ...weights.source import provide

    hashes = [value for item in config.lora for value in read_header(item, config.takes_image).hashes(item).values()]
    if config.transformer_gguf is not None:
        hashes.append(sha256_of(find_file("transformer_gguf", config.transformer_gguf, ".gguf")))
    with ProgressDisplay(console) as display:
        folder = provide(config, lambda transfer: display(transfer.progress), display.note)
    return " ".join([weights_identity(folder), *hashes])


@contextmanager
def size_check(backend: Backend, flags: dict[str, Any]) -> Iterator[CheckSize | None]:
    """Yield a check whether a size fits this machine; None if the user named a profile, which overrides the check."""
    from ...backends.local.profile_choice import choose_profile, named_profile
    from ...planner.machine import has_cuda_driver

    config = backend.config
    if config is None or flags["executor"] == "ray" or named_profile(flags["profile"]) is not None:
        yield None
    elif not has_cuda_driver():
        yield lambda request: choose_profile(request, config)
    else:
        # Querying free GPU memory creates a CUDA context, which occupies GPU memory until the process ends.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as child:
            yield lambda request: child.submit(choose_profile, request, config).result()


def refuse_foreign(backend: Backend, flags: dict[str, Any], max_cost_usd: float | None) -> None:
    """Refuse options that do not apply to this backend.

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
        raise ConfigError(f"{', '.join(wrong)}: not an option of the backend {backend.name}; leave it out")
