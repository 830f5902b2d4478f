"""A checkpoint of random numbers in diffusers' layout, which the package's own loader takes for a real one.

Where it is, whether it is whole, and what it takes; ``weights`` writes it, in a process of its own. Needs
no torch.
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

# The content of config.json of each component, by component.
Configs = dict[str, dict[str, Any]]

FULL_SIZE = configs_dir() / "architectures" / "hunyuan-video.json"
STORED = DTYPES["cuda"]  # precisions, as in the real checkpoint
SHARD_BYTES = 5_000_000_000
SPARE_BYTES = 1_000_000_000


def read_configs(path: Path) -> Configs:
    """The components' configs of a JSON file such as ``FULL_SIZE``.

    Raises:
        ModelLoadError: unreadable, or a component is missing.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {name: dict(content[name]) for name in COMPONENTS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelLoadError(
            f"architecture={str(path)!r}: must be a JSON file with the config.json of {', '.join(COMPONENTS)}; "
            f"there is a {type(error).__name__}: {error}"
        ) from error


def model_config(folder: Path) -> ModelConfig:
    """The 13 B model's config with a random checkpoint in the place of its weights, and no licence to accept."""
    tiny = load_model_config("tiny")  # whose tokenizers the checkpoint has
    return load_model_config("hunyuan-video").model_copy(
        update={"model_id": str(folder), "prompt_template": tiny.prompt_template, "licence": None}
    )


@contextmanager
def without_weights(configs: Configs) -> Iterator[ModelConfig]:
    """A model of which only the configs are there, which is enough to plan."""
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as name:
        for component, content in configs.items():
            (Path(name) / component).mkdir()
            (Path(name) / component / "config.json").write_text(json.dumps(content))
        yield model_config(Path(name))


def bytes_on_disk(configs: Configs) -> int:
    """What the weights take."""
    with without_weights(configs) as model:
        architecture = read_architecture(model)
    return sum(store(getattr(architecture, name), STORED[name]).total for name in COMPONENTS)


def provide(work_dir: Path, configs: Configs, on_note: Callable[[str], None], timeout_s: float) -> Path:
    """The folder of a random checkpoint; a complete one that is there is used again.

    Args:
        work_dir: where the folder is made.
        configs: of its components.
        on_note: told what is being written.
        timeout_s: the writing may take so long.

    Raises:
        ConfigError: the disk does not hold it, or it cannot be written.
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
    """All that the content of the files depends on, hashed."""
    versions = [importlib.metadata.version(name) for name in ("torch", "diffusers", "transformers")]
    facts = json.dumps([configs, SHARD_BYTES, STORED, versions], sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()[:12]


def _check_disk(work_dir: Path, size: int) -> None:
    free, needed = shutil.disk_usage(work_dir).free, size + SPARE_BYTES
    if free < needed:
        raise ConfigError(
            f"work_dir={str(work_dir)!r}: {free / 1e9:.1f} GB of disk are free, and the random checkpoint needs "
            f"{needed / 1e9:.1f} GB; make room, or choose a folder on another disk (--work-dir)"
        )
