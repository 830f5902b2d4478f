"""Licences of weights, and their acceptance by this user: one small file per accepted licence."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path

from ..config import Licence, ModelConfig, configs_dir, load_model_config, model_names, state_dir
from ..config.places import known_state_dir
from ..durable import replacing
from ..errors import ConfigError
from .cache import find_part

ORIGINAL = "hunyuan-video"  # its licence also covers derived checkpoints
_SIZES = ("num_layers", "num_single_layers", "num_attention_heads", "attention_head_dim", "num_refiner_layers")


def accept(licence: Licence) -> None:
    """Record that the user has accepted this version of the licence.

    Raises:
        ConfigError: the state folder cannot be written.
    """
    path = _record(licence, state_dir())
    record = licence.model_dump() | {"accepted_at": datetime.now(UTC).isoformat(timespec="seconds")}
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with replacing(path) as partial:
            partial.write_text(json.dumps(record, indent=1), encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path.parent}: cannot be written: {error}; make it writable, or set HUNYUAN_LOCAL_STATE_DIR to another "
            "folder"
        ) from error


def is_accepted(licence: Licence | None) -> bool:
    """Whether this version of the licence has been accepted; True if there is no licence."""
    if licence is None:
        return True
    state = known_state_dir()
    return state is not None and os.path.isfile(_record(licence, state))


def licence_of(config: ModelConfig, folder: Path | None) -> Licence | None:
    """The licence of a model's weights: that of its config, or that of the 13 B model for derived checkpoints.

    A folder or repository without a config counts as derived if its transformer has the layer sizes of the 13 B
    model. The licence of any other is unknown (None).

    Args:
        folder: folder of the checkpoint, which may be incomplete.
    """
    if config.licence is not None or config.is_described or folder is None:
        return config.licence
    if _layers(folder / "transformer" / "config.json") == _known_layers():
        return load_model_config(ORIGINAL).licence
    return None


def notices_of(config: ModelConfig) -> list[str]:
    """The notices to show at each use: that of the licence, then that of the model."""
    licence = licence_of(config, config.folder or find_part(config))
    return [text for text in (licence and licence.notice, config.notice) if text]


def check_accepted(config: ModelConfig, licence: Licence | None) -> None:
    """Refuse a model if its licence has not been accepted.

    Args:
        licence: the result of :func:`licence_of`.

    Raises:
        ConfigError: names the licence and the command that accepts it.
    """
    if licence is not None and not is_accepted(licence):
        raise ConfigError(
            f"model={config.name!r}: {licence.notice}; read it, then accept it once with: "
            f"{download_command(config)} --accept-licence"
        )


def download_command(config: ModelConfig) -> str:
    """The command that downloads a model."""
    known = config.name in model_names() or config.name == config.model_id
    command = f"hunyuan-local download --model {config.name if known else 'FILE.yaml'}"
    return command if config.revision is None else f"{command} --revision {config.revision}"


def _record(licence: Licence, state: Path) -> Path:
    name = re.sub(r"[^a-z0-9]+", "-", f"{licence.name} {licence.version}".lower()).strip("-")
    return state / "licences" / f"{name}.json"


def _known_layers() -> dict[str, object] | None:
    """The layer sizes of the 13 B model's transformer."""
    path = configs_dir() / "architectures" / f"{ORIGINAL}.json"
    return _sizes(json.loads(path.read_text(encoding="utf-8"))["transformer"])


def _layers(config: Path) -> dict[str, object] | None:
    """The layer sizes of a checkpoint's transformer; None if they cannot be read."""
    try:
        return _sizes(json.loads(config.read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError):
        return None


def _sizes(transformer: dict[str, object]) -> dict[str, object]:
    return {name: transformer.get(name) for name in _SIZES}
