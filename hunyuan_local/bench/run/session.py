"""Prepares a bench from the user's options: targets, makers, and the earlier rows in its folder.

Every check that is possible up front runs here, before anything is generated or sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...backends.base import Backend
from ...backends.hosted.backend import HostedBackend
from ...backends.hosted.spending import Budget
from ...backends.local.backend import LocalBackend
from ...backends.registry import get_backend, option_names
from ...config import LoraConfig
from ...errors import ConfigError
from ...provenance import now
from ..results.result import BenchResult, Target
from .billing import Bill, make_bills, make_budgets
from .folder import check_same, earlier_result
from .local_process import LocalProcess, ProcessDied
from .makers import HostedMaker, LocalMaker, remove_unfinished
from .outcome import Maker
from .runner import VIDEOS, Bench
from .scenarios import ScenarioFile
from .targets import check_labels, hosted_target, local_target

SPENT = "spent.json"


@dataclass(frozen=True)
class LocalOptions:
    """Options of the local backend from the command line, for :func:`hunyuan_local.backends.registry.get_backend`."""

    model: str | None = None
    revision: str | None = None
    profile: str | None = None
    lora: tuple[LoraConfig, ...] = ()
    cache: str | None = None

    @property
    def given(self) -> list[str]:
        """The options that the user set."""
        return [f"--{name}" for name, value in vars(self).items() if value]


@dataclass
class Session:
    """A prepared bench with its resources, from :func:`open_session`.

    Attributes:
        bench: the bench, ready to run.
        makers: one per target.
        process: the process that generates local videos.
        budget: spending on billed targets; None if nothing is billed.
        bills: what the bench would submit to paid services.
    """

    bench: Bench
    makers: Sequence[Maker]
    process: LocalProcess
    budget: Budget | None = None
    bills: list[Bill] = field(default_factory=list)

    def close(self) -> None:
        """End the local process and close the connections."""
        for maker in self.makers:
            maker.close()
        self.process.close()


def check_options(
    names: Sequence[tuple[str, str | None]], local: LocalOptions, api_key: str | None, timeout_s: float | None
) -> None:
    """Refuse options that have no effect on the backends of a bench.

    Raises:
        ConfigError: there is such an option; the message names it.
    """
    hosted = [name for name, _ in names if "api_key" in option_names(name)]
    if len(hosted) == len(names) and local.given:
        raise ConfigError(f"{', '.join(local.given)}: only for the local backend; omit it, or add --backend local")
    if api_key is not None and len(hosted) != 1:
        raise ConfigError(
            f"--api-key: needs exactly one hosted backend, not {len(hosted)}; set WAVESPEED_API_KEY and "
            "NOVITA_API_KEY instead"
        )
    if timeout_s is not None and not hosted:
        raise ConfigError("--timeout: only for hosted backends; omit it")


def make_backends(
    names: Sequence[tuple[str, str | None]], local: LocalOptions, api_key: str | None, timeout_s: float | None
) -> list[Backend]:
    """Create the backends without loading models or connecting to services.

    Raises:
        ConfigError: unknown model, profile or cache, or an invalid value.
    """
    given = {key: value or None for key, value in vars(local).items()} | {"api_key": api_key, "timeout_s": timeout_s}
    found = []
    for name, url in names:
        options = given | {"base_url": url}
        found.append(get_backend(name, **{key: options[key] for key in option_names(name) if key in options}))
    if any(backend.config is not None and not isinstance(backend, LocalBackend) for backend in found):
        raise ConfigError(
            f"profile={local.profile!r}: splits one video over several GPUs, which a bench does not support; remove "
            "context_parallel from the profile"
        )
    return found


def open_session(
    file: ScenarioFile,
    backends: Sequence[Backend],
    folder: Path,
    *,
    repeats: int,
    local: LocalOptions,
    weights: Callable[[], str] = lambda: "",
    max_cost_usd: float | None = None,
    retry_failed: bool = False,
    keep_videos: bool = True,
    on_note: Callable[[str], None] = lambda text: None,
) -> Session:
    """Start a bench, or resume the one in the folder. The caller must hold the folder's lock.

    Args:
        backends: backends from :func:`make_backends`.
        repeats: runs per request and backend.
        weights: returns the identity of the local model's files; downloads them if they are missing.
        max_cost_usd: limit for everything submitted to paid services, earlier runs included.

    Raises:
        AuthenticationError: a service has no API key.
        ConfigError: the folder contains another bench, the limit cannot be enforced, or the machine cannot be
            described.
    """
    earlier = earlier_result(folder)
    services = [(hosted_target(one), one.capabilities) for one in backends if isinstance(one, HostedBackend)]
    check_labels(target for target, _ in services)
    billed = {target.label: limits for target, limits in services if target.is_billed}
    budgets = make_budgets(billed, max_cost_usd, folder / SPENT)
    targets = [_target(backend, local, weights) for backend in backends]
    model = next((backend.config for backend in backends if backend.config is not None), None)
    # The config includes the revision and the LoRAs.
    process = LocalProcess({"model": model, "profile": local.profile, "cache": local.cache})
    try:
        machine = _describe(process)
        if model is None:
            process.close()  # no local backend
        if earlier is not None:
            check_same(earlier, file, targets, repeats, machine, folder)
            targets = earlier.targets
            on_note(f"resuming the bench in {folder}: {len(earlier.runs)} runs are done")
        result = BenchResult(
            name=file.name, created_at=earlier.created_at if earlier else now(), machine=machine,
            finished_at=earlier.finished_at if earlier else None, scenarios=file.content, repeats=repeats,
            targets=list(targets), runs=list(earlier.runs) if earlier else [],
        )  # fmt: skip
        videos = folder / VIDEOS
        remove_unfinished(videos)
        makers = [
            HostedMaker(
                target, backend, videos, result.created_at, allow_loss=file.allow_loss,
                spending=budgets.get(target.label),
            )
            if isinstance(backend, HostedBackend)
            else LocalMaker(target, backend.capabilities, videos, process)
            for target, backend in zip(targets, backends, strict=True)
        ]  # fmt: skip
        hosted = [maker for maker in makers if isinstance(maker, HostedMaker)]
        bench = Bench(file, result, makers, folder, retry_failed=retry_failed, keep_videos=keep_videos)
        for maker in hosted:
            if any(run.label == maker.target.label for run in bench.todo):
                maker.check_key()
        budget = next(iter(budgets.values()), None)  # all share one spending record
        return Session(bench, makers, process, budget, make_bills(bench.todo, hosted))
    except BaseException:
        process.close()
        raise


def _target(backend: Backend, local: LocalOptions, weights: Callable[[], str]) -> Target:
    if isinstance(backend, HostedBackend):
        return hosted_target(backend)
    assert backend.config is not None  # a local backend has one
    return local_target(backend.config, backend.profile, local.cache, weights())


def _describe(process: LocalProcess) -> dict[str, Any]:
    """The machine card, from the local process."""
    try:
        card: dict[str, Any] = process.ask("card")
        return card
    except ProcessDied as error:
        raise ConfigError(
            f"this machine cannot be described: {error}; see the output above, and run 'hunyuan-local doctor'"
        ) from error
