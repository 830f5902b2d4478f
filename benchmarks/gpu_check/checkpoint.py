"""A random checkpoint in diffusers' layout, which the package loads like a real one.

Manages its folder, completeness and size; ``weights`` writes it in a separate process. Does not need torch.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hunyuan_local.config import ModelConfig, configs_dir, load_model_config
from hunyuan_local.errors import ConfigError, ModelLoadError
from hunyuan_local.planner.checkpoint import COMPONENTS, read_architecture
from hunyuan_local.planner.modes import DTYPES
from hunyuan_local.planner.weights import store
from hunyuan_local.weights.files import missing_files

from . import apart

# Content of each component's config.json, by component.
Configs = dict[str, dict[str, Any]]

FULL_SIZE = configs_dir() / "architectures" / "hunyuan-video.json"
STORED = DTYPES["cuda"]  # precisions of the real checkpoint
SHARD_BYTES = 5_000_000_000
SPARE_BYTES = 1_000_000_000


def read_configs(path: Path) -> Configs:
    """Read the components' configs from a JSON file such as ``FULL_SIZE``.

    Raises:
        ModelLoadError: the file is unreadable, or a component is missing.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {name: dict(content[name]) for name in COMPONENTS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelLoadError(
            f"architecture={str(path)!r}: must be a JSON file with the config.json of {', '.join(COMPONENTS)}; "
            f"{type(error).__name__}: {error}"
        ) from error


def model_config(folder: Path) -> ModelConfig:
    """The 13 B model's config with a random checkpoint instead of its weights, and without a licence to accept."""
    tiny = load_model_config("tiny")  # the checkpoint has its tokenizers
    return load_model_config("hunyuan-video").model_copy(
        update={"model_id": str(folder), "prompt_template": tiny.prompt_template, "licence": None}
    )


@contextmanager
def without_weights(configs: Configs) -> Iterator[ModelConfig]:
    """A model with configs but no weights, which is enough to plan."""
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as name:
        for component, content in configs.items():
            (Path(name) / component).mkdir()
            (Path(name) / component / "config.json").write_text(json.dumps(content))
        yield model_config(Path(name))


def bytes_on_disk(configs: Configs) -> int:
    """Bytes of the weights."""
    with without_weights(configs) as model:
        architecture = read_architecture(model)
    return sum(store(getattr(architecture, name), STORED[name]).total for name in COMPONENTS)


def provide(work_dir: Path, configs: Configs, on_note: Callable[[str], None], timeout_s: float) -> Path:
    """Return the folder of a random checkpoint, and write the checkpoint unless a complete one exists.

    Args:
        work_dir: parent of the folder.
        configs: configs of the components.
        on_note: called with progress messages.
        timeout_s: time limit for writing.

    Raises:
        ConfigError: the disk is too small, or the checkpoint cannot be written.
    """
    folder = work_dir / f"random-{_key(configs)}"
    if folder.is_dir() and not missing_files(folder):
        on_note(f"using the random checkpoint in {folder}")
        return folder
    partial = folder.with_suffix(".partial")
    for leftover in (folder, partial):
        shutil.rmtree(leftover, ignore_errors=True)
    size = bytes_on_disk(configs)
    try:
        partial.mkdir(parents=True)
        _check_disk(work_dir, size)
        on_note(f"writing a random checkpoint of {size / 1e9:.1f} GB to {folder}")
        task = {"kind": "weights", "device": "cpu", "folder": str(partial), "configs": configs}
        error = apart.run(task | {"shard_bytes": SHARD_BYTES}, timeout_s).get("error")
        if error:
            raise ConfigError(
                f"work_dir={str(work_dir)!r}: the random checkpoint cannot be written: {error['message']}"
            )
        partial.rename(folder)
    except OSError as error:
        raise ConfigError(
            f"work_dir={str(work_dir)!r}: cannot be written: {error}; choose another folder (--work-dir)"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _key(configs: Configs) -> str:
    """Hash of everything that determines the content of the files."""
    versions = [importlib.metadata.version(name) for name in ("torch", "diffusers", "transformers")]
    facts = json.dumps([configs, SHARD_BYTES, STORED, versions], sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()[:12]


def _check_disk(work_dir: Path, size: int) -> None:
    free, needed = shutil.disk_usage(work_dir).free, size + SPARE_BYTES
    if free < needed:
        raise ConfigError(
            f"work_dir={str(work_dir)!r}: {free / 1e9:.1f} GB of disk are free, but the random checkpoint needs "
            f"{needed / 1e9:.1f} GB; free some space, or choose a folder on another disk (--work-dir)"
        )
