"""A model's weights: from its own folder, from the Hub's cache, or downloaded now.

Knows nothing about how files are fetched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from ..config import ModelConfig, is_offline
from ..errors import ModelLoadError
from .cache import find, find_here, name_commit
from .download import Download, Transfer, free_bytes
from .files import missing_files
from .hub import Hub, list_files, translated
from .licence import check_accepted, download_command


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
        ConfigError: not here, and its licence not accepted.
        ModelLoadError: not here, and ``HF_HUB_OFFLINE`` is set.
    """
    if (folder := find_here(config)) is not None:
        return folder
    if is_offline():
        raise ModelLoadError(
            f"model={config.model_id!r}: no folder of that name, not complete in the local cache, and HF_HUB_OFFLINE "
            f"is set; run '{download_command(config)}' once with a network, or give the path of a folder that holds it"
        )
    check_accepted(config)
    return None


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
    check_accepted(config)
    hub = hub or Hub.default()
    try:
        if is_offline():
            raise ModelLoadError(f"model={config.model_id!r}: HF_HUB_OFFLINE forbids downloads; unset it for this one")
        listing = list_files(config, hub)
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
