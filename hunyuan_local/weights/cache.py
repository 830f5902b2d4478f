"""Finds checkpoints in the Hub cache, without the network.

The Hub client documents the layout: ``models--OWNER--NAME`` has ``refs/REVISION`` with a commit, ``snapshots/COMMIT``
with links, and ``blobs`` with the linked files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented there

from ..config import ModelConfig
from ..durable import replacing
from .files import MODEL_INDEX, PIPELINE_CLASSES, missing_files, pipeline_class
from .hub import Hub, translated
from .hub_private import default_revision

_PLAIN = re.compile(r"[\w.-]*\w[\w.-]*")  # the name of one folder
PART = ".part"  # suffix of an unfinished large file in blobs/


@dataclass(frozen=True)
class Snapshot:
    """One commit of a repository in the cache; ``revisions`` are the refs that point to it."""

    model_id: str
    folder: Path
    revisions: tuple[str, ...]


def find(config: ModelConfig, hub: Hub | None = None) -> Path | None:
    """The folder of the model's revision in the cache; None if it is missing or incomplete.

    Raises:
        ConfigError: the model id is not a valid repository id.
    """
    folder = find_any(config, hub)
    return folder if folder is not None and not missing_files(folder) else None


def find_here(config: ModelConfig) -> Path | None:
    """The model's own folder, or else the result of :func:`find`; None if it must be downloaded."""
    return config.folder or find(config)


def is_here(model_id: str, hub: Hub | None = None) -> bool:
    """Whether a repository of another kind, such as a language model, is in the cache, at least in part."""
    cache = (hub or Hub.default()).cache
    return isinstance(try_to_load_from_cache(model_id, "config.json", cache_dir=cache), str)


def find_any(config: ModelConfig, hub: Hub | None = None) -> Path | None:
    """Like :func:`find`, but also finds incomplete checkpoints.

    A ref may end in a newline, as editors add one.
    """
    hub = hub or Hub.default()
    revision = config.revision or default_revision()
    with translated(config, f"{hub.cache} cannot be searched", "set HF_HOME to another folder"):
        validate_repo_id(config.model_id)
        repository = hub.repository(config.model_id)
        named = repository / "refs" / revision
        commit = named.read_text(encoding="utf-8").strip() if named.is_file() else revision
        folder = repository / "snapshots" / commit
        return folder if _PLAIN.fullmatch(commit) and folder.is_dir() else None


def find_part(config: ModelConfig, hub: Hub | None = None) -> Path | None:
    """Like :func:`find_any`, but also finds an unfinished download, which no ref points to yet."""
    hub = hub or Hub.default()
    folder = find_any(config, hub)
    if folder is None and config.revision is None:
        unfinished = (found.folder for found in snapshots(hub, config.model_id) if not found.revisions)
        folder = next((folder for folder in unfinished if missing_files(folder)), None)
    return folder


def snapshots(hub: Hub, model_id: str | None = None) -> Iterator[Snapshot]:
    """All HunyuanVideo checkpoints in the cache, or those of one repository; newest first within a repository."""
    repositories = sorted(hub.cache.glob("models--*")) if model_id is None else [hub.repository(model_id)]
    for repository in repositories:
        names = _names(repository)
        folders = [path.parent for path in repository.glob(f"snapshots/*/{MODEL_INDEX}") if path.is_file()]
        for folder in sorted(folders, key=lambda folder: folder.stat().st_mtime, reverse=True):
            if pipeline_class(folder) in PIPELINE_CLASSES:
                identity = repository.name.removeprefix("models--").replace("--", "/")
                yield Snapshot(identity, folder, tuple(names.get(folder.name, ())))


def bytes_of_parts(hub: Hub, model_id: str) -> int:
    """Size of unfinished files in bytes."""
    return sum(path.stat().st_size for path in hub.repository(model_id).glob(f"blobs/*{PART}"))


def name_commit(hub: Hub, model_id: str, revision: str | None, commit: str) -> None:
    """Point the ref of a revision to a commit, as the Hub client does."""
    if revision == commit:
        return
    path = hub.repository(model_id) / "refs" / (revision or default_revision())
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(commit)


def _names(repository: Path) -> dict[str, list[str]]:
    """The names of the refs of each commit."""
    refs = repository / "refs"
    names: dict[str, list[str]] = {}
    for path in sorted(refs.glob("**/*")):
        if path.is_file():
            names.setdefault(path.read_text().strip(), []).append(path.relative_to(refs).as_posix())
    return names
