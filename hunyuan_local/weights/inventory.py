"""Lists the available models: presets, models in the Hub cache, and folders; each with its missing files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..config import Licence, ModelConfig, load_model_config, model_names
from ..errors import ConfigError
from .cache import bytes_of_parts, find_part, snapshots
from .files import MODEL_INDEX, missing_files, problem_of, size_on_disk
from .hub import Hub
from .licence import download_command, is_accepted, licence_of

Kind = Literal["preset", "cache", "folder"]


@dataclass(frozen=True)
class Model:
    """One model that ``--model`` accepts.

    Attributes:
        name: its name for ``--model``.
        kind: a preset in ``configs/models``, a repository in the Hub cache, or a folder.
        model_id, revision: Hub id and revision; for a folder, its path and None.
        folder: the folder of its files; None if there are none.
        size_bytes: size of its files on disk, including unfinished downloads.
        missing: files that the folder lacks for a complete checkpoint.
        problem: why it cannot be loaded, with the remedy; empty if it can.
        licence: its licence; None if there is none to accept.
    """

    name: str
    kind: Kind
    model_id: str
    revision: str | None
    folder: Path | None
    size_bytes: int
    missing: tuple[str, ...]
    problem: str
    licence: Licence | None

    @property
    def complete(self) -> bool:
        """Whether all files are present."""
        return self.folder is not None and not self.missing

    def as_json(self) -> dict[str, Any]:
        """All attributes as a JSON object."""
        licence = None if self.licence is None else self.licence.model_dump() | {"accepted": is_accepted(self.licence)}
        return {
            "name": self.name,
            "kind": self.kind,
            "model_id": self.model_id,
            "revision": self.revision,
            "folder": None if self.folder is None else str(self.folder),
            "size_bytes": self.size_bytes,
            "complete": self.complete,
            "missing": list(self.missing),
            "loadable": not self.problem,
            "problem": self.problem,
            "licence": licence,
        }


def list_models(folders: Sequence[Path] = (), hub: Hub | None = None) -> list[Model]:
    """The presets, then other HunyuanVideo checkpoints in the Hub cache, then the checkpoints in ``folders``.

    Args:
        folders: checkpoints, or folders that contain checkpoints.
        hub: None uses the Hub of the environment.

    Raises:
        ConfigError: a folder does not exist, or does not contain a checkpoint.
    """
    hub = hub or Hub.default()
    presets = [describe(load_model_config(name), hub) for name in model_names()]
    shown = {model.folder for model in presets}
    cached = [model for model in _cached(hub) if model.folder not in shown]
    return [*presets, *cached, *(_describe_folder(folder) for given in folders for folder in _checkpoints(given))]


def describe(config: ModelConfig, hub: Hub | None = None) -> Model:
    """Describe the local state of a model."""
    hub = hub or Hub.default()
    if config.folder is not None:
        return _model(config, "preset", config.folder, None)
    return _model(config, "preset", find_part(config, hub), hub)


def _cached(hub: Hub) -> Iterator[Model]:
    for found in snapshots(hub):
        config = load_model_config(found.model_id)
        if "main" not in found.revisions:
            config = config.with_revision(found.revisions[0] if found.revisions else found.folder.name)
        yield _model(config, "cache", found.folder, hub)


def _describe_folder(folder: Path) -> Model:
    return _model(load_model_config(str(folder)), "folder", folder, None)


def _checkpoints(folder: Path) -> list[Path]:
    """The folder itself if it is a checkpoint, otherwise its direct subfolders that are checkpoints."""
    found = [path.parent for path in (folder / MODEL_INDEX, *sorted(folder.glob(f"*/{MODEL_INDEX}"))) if path.is_file()]
    if not found:
        raise ConfigError(
            f"folder={str(folder)!r}: neither it nor a folder in it contains a {MODEL_INDEX}; give a checkpoint in "
            "the diffusers layout, or a folder of checkpoints"
        )
    return found[:1] if found[0] == folder else found


def _model(config: ModelConfig, kind: Kind, folder: Path | None, hub: Hub | None) -> Model:
    missing = tuple(missing_files(folder)) if folder is not None else ()
    size = size_on_disk(folder) if folder is not None else 0
    if hub is not None and missing:
        size += bytes_of_parts(hub, config.model_id)
    return Model(
        name=config.model_id if kind == "folder" else config.name,
        kind=kind,
        model_id=config.source,
        revision=config.revision,
        folder=folder,
        size_bytes=size,
        missing=missing,
        problem=_problem(config, folder, on_hub=hub is not None),
        licence=licence_of(config, folder),
    )


def _problem(config: ModelConfig, folder: Path | None, on_hub: bool) -> str:
    remedy = f"run: {download_command(config)}" if on_hub else "fetch the checkpoint again"
    if folder is None:
        return f"not downloaded; {remedy}"
    problem = problem_of(folder)
    return problem if not problem or problem.startswith("is a ") else f"{problem}; {remedy}"
