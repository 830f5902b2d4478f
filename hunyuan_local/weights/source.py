"""Locates a model's weights: in its folder, in the Hub cache, or by downloading them.

The transfer of files is in ``download``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from ..config import Licence, ModelConfig
from ..config.files import for_checkpoint, is_of_preset
from ..config.places import offline_by
from ..errors import ConfigError, ModelLoadError, UnknownModelError
from .cache import find, find_here, find_part, name_commit, snapshots
from .download import Download, Transfer, fetch_configs, free_bytes
from .files import PIPELINE_CLASSES, has_configs, missing_files, pipeline_class, problem_of
from .hub import Hub, list_files, translated
from .hub_private import default_revision
from .licence import check_accepted, download_command, licence_of


def _ignore(message: Transfer | str) -> None:
    """Default callback: ignores the message."""


def provide(
    config: ModelConfig,
    on_transfer: Callable[[Transfer], None] = _ignore,
    on_note: Callable[[str], None] = _ignore,
) -> Path:
    """The folder of a model's weights; downloads them if needed, provided that the licence is accepted.

    A model that exists locally is used without asking the Hub for a newer version.

    Raises:
        ConfigError: the model is not local, and its licence is not accepted or the Hub has no such repository.
        ModelLoadError: the model is not local and cannot be downloaded.
    """
    return check_obtainable(config) or fetch(config, on_transfer=on_transfer, on_note=on_note)


def check_obtainable(config: ModelConfig) -> Path | None:
    """The folder of a local model; None if it must be downloaded and may be.

    Raises:
        ConfigError: the model is not local, and its licence is not accepted or the Hub has no such repository.
        ModelLoadError: the model is missing or incomplete and cannot be downloaded; names the missing files.
    """
    folder = _find_whole(config)
    if folder is None:
        check_accepted(config, terms_of(config))
    return folder


def check_known(config: ModelConfig) -> None:
    """Check that a model exists, locally or on the Hub, before anything is planned for it or downloaded.

    Raises:
        ConfigError: its config file says text to video and its checkpoint is image to video, or the reverse.
        ConfigError, ModelLoadError: as :func:`check_obtainable`, but without checking the licence.
    """
    folder = _find_whole(config) or known_configs(config)
    found = None if folder is None else pipeline_class(folder)
    if found is None or PIPELINE_CLASSES.get(found) in (None, config.takes_image):
        return
    needed = "true" if PIPELINE_CLASSES[found] else "false"
    raise ConfigError(
        f"takes_image={config.takes_image}: the checkpoint {config.model_id} of model={config.name!r} is a {found}; "
        f"set takes_image: {needed} in the model's YAML file, or name another model_id"
    )


def with_own_preset(config: ModelConfig) -> ModelConfig:
    """The model with the preset of its checkpoint's architecture, if only its Hub id is known; otherwise unchanged.

    Downloads a few kilobytes from the Hub if nothing of the model is local.

    Raises:
        ConfigError, ModelLoadError: as :func:`known_configs`.
    """
    if config.is_described or config.folder is not None:
        return config
    folder = known_configs(config)
    return config if folder is None else for_checkpoint(config, folder)


def _find_whole(config: ModelConfig) -> Path | None:
    """The folder of a complete local model; None if there is none and the network may be used."""
    if (folder := find_here(config)) is not None:
        if problem := problem_of(folder):
            raise ModelLoadError(f"model={config.model_id!r}: {folder} {problem}; fetch the checkpoint again")
        return folder
    if (variable := offline_by()) is not None:
        raise _not_here(config, f"{variable} is set")
    return None


def known_configs(config: ModelConfig, hub: Hub | None = None) -> Path | None:
    """The folder with the component configs of a model; downloads a few kilobytes from the Hub if needed.

    None for a model in ``configs/models`` that is not local, since its architecture is known.

    Raises:
        ConfigError: the Hub has no such repository, or it holds a different kind of model.
        UnknownModelError: nothing of the model is local, and the Hub cannot be reached.
        ModelLoadError: the configs are not local and cannot be downloaded.
    """
    if config.folder is not None:
        return config.folder
    hub = hub or Hub.default()
    folder = find_part(config, hub)
    if folder is not None and has_configs(folder):
        return folder
    if is_of_preset(config):
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
    """The licence of a model that is not local; asks the Hub only if no config has it."""
    known = config.licence is not None or config.is_described
    return config.licence if known else licence_of(config, known_configs(config, hub))


def _not_here(config: ModelConfig, why: str, hub: Hub | None = None) -> ModelLoadError:
    """The error for a model that is not local while the Hub must not be used."""
    hub = hub or Hub.default()
    unknown = not config.is_described and not hub.repository(config.model_id).is_dir()
    kind = UnknownModelError if unknown else ModelLoadError
    return kind(
        f"model={config.model_id!r}: {_what_is_here(config, hub)}, and {why}; run '{download_command(config)}' once "
        "with network access, or give the path of a folder that contains the model"
    )


def _what_is_here(config: ModelConfig, hub: Hub) -> str:
    """What this machine has of an incomplete model, as part of a message."""
    if (folder := find_part(config, hub)) is not None:
        return f"{folder} {problem_of(folder) or 'is complete'}"
    others = [found.folder.name for found in snapshots(hub, config.model_id)]
    if not others:
        return f"no folder with this name, and not in the local cache {hub.cache}"
    return (
        f"the local cache {hub.cache} has no revision {config.revision or default_revision()!r}, but "
        f"{', '.join(others)} (select it with --revision)"
    )


def fetch(
    config: ModelConfig,
    hub: Hub | None = None,
    on_transfer: Callable[[Transfer], None] = _ignore,
    on_note: Callable[[str], None] = _ignore,
    free: Callable[[Path], int] = free_bytes,
) -> Path:
    """Download the missing files of a model's latest commit or its revision; returns its folder in the cache.

    After an interrupt or an error, the next call resumes the download. If the Hub cannot be reached, a complete copy
    in the cache is used.

    Args:
        hub: None uses the Hub of the environment.
        on_transfer: called with the progress at intervals, from the calling thread.
        on_note: called with notes for the user.
        free: returns the free bytes at a folder.

    Raises:
        ConfigError: the licence is not accepted, there is no such repository or revision, or it is not a checkpoint.
        ModelLoadError: the Hub cannot be reached, the download fails, the disk is too small, or a file is damaged.
    """
    check_accepted(config, config.licence)
    hub = hub or Hub.default()
    try:
        if (variable := offline_by()) is not None:
            raise ModelLoadError(f"model={config.model_id!r}: {variable} forbids downloads; unset it for this download")
        check_accepted(config, terms_of(config, hub))
        hub.check_download(f"model={config.model_id!r}")
        listing = list_files(config, hub, _what_is_here(config, hub))
    except ModelLoadError as error:
        if (folder := find(config, hub)) is None:
            raise
        on_note(f"using the complete copy in the cache without checking for a newer version: {error}")
        return folder
    remedy = "run the same command again to resume it"
    with (
        translated(config, f"the download from {hub.endpoint} failed", remedy),
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
    """Let one process at a time download a repository; others wait and then find it in the cache."""
    path = hub.cache / ".locks" / hub.repository(config.model_id).name / "hunyuan-local.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_note(f"another process is downloading {config.model_id}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _quiet_client() -> Iterator[None]:
    """Disable the per-file progress bars of the Hub client, which would mix with ours."""
    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
