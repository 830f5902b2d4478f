"""A model's weights: from its own folder, from the Hub's cache, or downloaded now.

Knows nothing about how files are fetched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from ..config import Licence, ModelConfig, presets
from ..config.places import offline_by
from ..errors import ModelLoadError, UnknownModelError
from .cache import find, find_here, find_part, name_commit, snapshots
from .download import Download, Transfer, fetch_configs, free_bytes
from .files import has_configs, missing_files, problem_of
from .hub import Hub, list_files, translated
from .hub_private import default_revision
from .licence import check_accepted, download_command, licence_of


def _ignore(told: Transfer | str) -> None:
    """The callback of a caller who does not ask."""


def provide(
    config: ModelConfig,
    on_transfer: Callable[[Transfer], None] = _ignore,
    on_note: Callable[[str], None] = _ignore,
) -> Path:
    """The folder of a model that is to be used: its own, the cache's, or, with the licence accepted, downloaded now.

    A model that is here is used as it is; the Hub is not asked for a newer one.

    Raises:
        ConfigError: not here, and its licence not accepted; or the Hub has no such repository.
        ModelLoadError: not here, and it cannot be fetched.
    """
    return check_obtainable(config) or fetch(config, on_transfer=on_transfer, on_note=on_note)


def check_obtainable(config: ModelConfig) -> Path | None:
    """The folder of a model that is here; None if it is not, and may be downloaded.

    Raises:
        ConfigError: not here, and its licence not accepted, or the Hub has no such repository.
        ModelLoadError: not here or not whole, and it cannot be fetched; names the files that it lacks.
    """
    folder = _find_whole(config)
    if folder is None:
        check_accepted(config, terms_of(config))
    return folder


def check_known(config: ModelConfig) -> None:
    """Settle that a model is here or can be fetched, and which one it is, before anything is planned for it.

    Raises:
        ConfigError, ModelLoadError: as :func:`check_obtainable`; whether the licence is accepted is not asked.
    """
    if _find_whole(config) is None:
        known_configs(config)


def _find_whole(config: ModelConfig) -> Path | None:
    """The folder of a model that is here; None if it is not, and the network may be used."""
    if (folder := find_here(config)) is not None:
        if problem := problem_of(folder):
            raise ModelLoadError(f"model={config.model_id!r}: {folder} {problem}; fetch the checkpoint again")
        return folder
    if (variable := offline_by()) is not None:
        raise _not_here(config, f"{variable} is set")
    return None


def known_configs(config: ModelConfig, hub: Hub | None = None) -> Path | None:
    """The folder with the configurations of a model: its own, the cache's, or a few kilobytes fetched from the Hub now.

    None for a model of ``configs/models`` that is not here: its architecture is known.

    Raises:
        ConfigError: the Hub has no such repository, or it is of another model.
        UnknownModelError: nothing of it is here, and the Hub cannot be asked.
        ModelLoadError: its configurations are not here and cannot be fetched.
    """
    if config.folder is not None:
        return config.folder
    hub = hub or Hub.default()
    folder = find_part(config, hub)
    if folder is not None and has_configs(folder):
        return folder
    if any(preset.model_id == config.model_id for preset in presets()):
        return None
    if (variable := offline_by()) is not None:
        raise _not_here(config, f"{variable} is set", hub)
    hub.check_download(f"model={config.model_id!r}")
    try:
        return fetch_configs(config, hub, list_files(config, hub, _what_is_here(config, hub)))
    except ModelLoadError as error:
        if folder is not None:
            raise
        raise UnknownModelError(str(error)) from error


def terms_of(config: ModelConfig, hub: Hub | None = None) -> Licence | None:
    """The licence of a model that is not here; the Hub is asked only where no config says it."""
    known = config.licence is not None or config.is_described
    return config.licence if known else licence_of(config, known_configs(config, hub))


def _not_here(config: ModelConfig, why: str, hub: Hub | None = None) -> ModelLoadError:
    """The error where the Hub is not to be asked."""
    hub = hub or Hub.default()
    unknown = not config.is_described and not hub.repository(config.model_id).is_dir()
    kind = UnknownModelError if unknown else ModelLoadError
    return kind(
        f"model={config.model_id!r}: {_what_is_here(config, hub)}, and {why}; run '{download_command(config)}' once "
        "with a network, or give the path of a folder that holds it"
    )


def _what_is_here(config: ModelConfig, hub: Hub) -> str:
    """What this machine has of a model that is not whole."""
    if (folder := find_part(config, hub)) is not None:
        return f"{folder} {problem_of(folder) or 'is whole'}"
    others = [found.folder.name for found in snapshots(hub, config.model_id)]
    if not others:
        return f"no folder of that name, nothing of it in the local cache {hub.cache}"
    return (
        f"in the local cache {hub.cache} no revision {config.revision or default_revision()!r} leads to a commit, and "
        f"there is {', '.join(others)}: give it with --revision"
    )


def fetch(
    config: ModelConfig,
    hub: Hub | None = None,
    on_transfer: Callable[[Transfer], None] = _ignore,
    on_note: Callable[[str], None] = _ignore,
    free: Callable[[Path], int] = free_bytes,
) -> Path:
    """Download what is missing of a model's newest commit, or of its revision; returns its folder in the cache.

    An interrupt, or an error, leaves what has arrived; the next call goes on from there. If the Hub
    cannot be asked, a complete copy in the cache is enough.

    Args:
        hub: None is the Hub of the environment.
        on_transfer: told now and then how far it is, from the calling thread.
        on_note: told what the user should know.
        free: the bytes that are free at a folder.

    Raises:
        ConfigError: the licence was not accepted; no such repository or revision; no such checkpoint.
        ModelLoadError: the Hub cannot be reached or breaks off, the disk is too small, or a file is damaged.
    """
    check_accepted(config, config.licence)
    hub = hub or Hub.default()
    try:
        if (variable := offline_by()) is not None:
            raise ModelLoadError(f"model={config.model_id!r}: {variable} forbids downloads; unset it for this one")
        check_accepted(config, terms_of(config, hub))
        hub.check_download(f"model={config.model_id!r}")
        listing = list_files(config, hub, _what_is_here(config, hub))
    except ModelLoadError as error:
        if (folder := find(config, hub)) is None:
            raise
        on_note(f"not asked for a newer version, the one in the cache is complete: {error}")
        return folder
    remedy = "what has arrived stays, and the same command goes on from there"
    with (
        translated(config, f"the download from {hub.endpoint} broke off", remedy),
        _quiet_client(),
        _alone(config, hub, on_note),
    ):
        folder = hub.repository(config.model_id) / "snapshots" / listing.commit
        Download(config, hub, listing, folder, free, on_transfer).run()
        if missing := missing_files(folder):
            raise ModelLoadError(f"model={config.model_id!r}: the repository lacks {', '.join(missing)}")
        name_commit(hub, config.model_id, config.revision, listing.commit)
    return folder


@contextlib.contextmanager
def _alone(config: ModelConfig, hub: Hub, on_note: Callable[[str], None]) -> Iterator[None]:
    """Let one process at a time download a repository; others wait, and then find it there."""
    path = hub.cache / ".locks" / hub.repository(config.model_id).name / "hunyuan-local.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_note(f"another process downloads {config.model_id}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _quiet_client() -> Iterator[None]:
    """Without the bars of the Hub's client, one a file, between our own."""
    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
